"""Who watches processes that share a job: what each of them tells, who is blamed, and that none is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advbench import launch, notice
from advbench.launch import RankError, here
from advbench.parallel import WRECK
from advbench.plan import Item, run_folder
from advbench.precision import Engine
from advbench.record import Epoch
from advbench.spec import BadInput
from advbench.train import Diverged, Trained

EPOCH: dict[str, Any] = {
    "epoch": 1,
    "loss": 0.5,
    "clean": 0.5,
    "fgsm": 0.4,
    "pgd": 0.3,
    "top_class": 0.2,
    "eps": 0.1,
    "lr": 0.1,
    "seconds": 2.5,
    "forward": 10,
    "backward": 9,
    "extra": {"fosc": 0.25},
}
TRAINED = Trained(
    {"w": torch.tensor([1.0])},
    {"w": torch.tensor([2.0])},
    3,
    (Epoch(**EPOCH),),
    Engine("bf16", True, False, 8, "why"),
    {"fosc": ("a note",)},
)


def same(one: Trained, other: Trained) -> bool:
    plain = [{**vars(t), "last": t.last["w"].item(), "best": t.best["w"].item()} for t in (one, other)]
    return plain[0] == plain[1]


class Process:
    """One that has ended in its own way."""

    def __init__(self, exitcode: int | None = 0) -> None:
        self.exitcode = exitcode
        self.done: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *told: self.done.append((name, *told))


def ranks(*codes: int | None) -> tuple[list[Any], list[Connection]]:
    """Ranks whose other ends the test holds."""
    pipes = [multiprocessing.Pipe() for _ in codes]
    made = [
        launch._Rank(number, Process(code), pipe[0])  # type: ignore[arg-type]
        for number, (code, pipe) in enumerate(zip(codes, pipes, strict=True))
    ]
    return made, [pipe[1] for pipe in pipes]


def nobody(*_: Any) -> None:
    pass


def watched(*said: list[tuple[Any, ...]], codes: tuple[int | None, ...] | None = None) -> list[tuple[Any, ...]]:
    """What the watcher was told by ranks that say this and go."""
    made, ends = ranks(*(codes or [0] * len(said)))
    for end, words in zip(ends, said, strict=True):
        for word in words:
            end.send(word)
        end.close()
    told: list[tuple[Any, ...]] = []
    launch._watch(made, lambda *news: told.append(news))
    return told


def test_it_returns_when_every_rank_is_done_and_passes_on_what_they_tell():
    assert watched([("tell", "train", 1, 2, "x"), ("done",)], [("done",)]) == [("train", 1, 2, "x")]


def test_the_first_error_is_the_cause_and_the_others_have_only_suffered():
    with pytest.raises(RankError) as failed:
        watched([("error", "Traceback\nRuntimeError: closed by peer\n", 7.0)], [("error", "KeyError: 'a'", 5.0)])
    assert str(failed.value) == "KeyError: 'a'\nRankError: rank 1 of 2: KeyError: 'a'"


@pytest.mark.parametrize(
    ("code", "how"),
    [(-9, "killed by signal 9 (SIGKILL)"), (3, "exit code 3"), (0, "exit code 0"), (None, "exit code None")],
)
def test_one_that_ended_without_a_word_is_the_cause_of_all_the_others_say(code, how):
    with pytest.raises(RankError, match=r"rank 1 of 2") as failed:
        watched([("error", "RuntimeError: closed by peer", 7.0)], [], codes=(0, code))
    assert str(failed.value).startswith(f"its process ended: {how}\n")


def test_a_rank_that_has_gone_is_waited_for_so_that_its_exit_code_is_known():
    made, ends = ranks(1)
    ends[0].close()
    launch._hear(made[0], nobody)
    assert made[0].process.done == [("join", 10)]
    assert (made[0].error, made[0].since, made[0].done) == ("its process ended: exit code 1", 0, False)


def test_a_loss_that_is_no_number_is_told_with_the_epochs_before():
    with pytest.raises(Diverged, match=r"^the loss is nan$") as failed:
        watched([("diverged", "the loss is nan", [EPOCH])], [])
    assert failed.value.history == (Epoch(**EPOCH),)


@pytest.mark.parametrize("late", [False, True])
def test_after_a_failure_the_others_have_a_while_to_say_why(monkeypatch, late: bool):
    monkeypatch.setattr(launch, "WRECK", 0.3)
    made, ends = ranks(0, 0)
    ends[0].send(("error", "RuntimeError: closed by peer", 7.0))
    if late:
        threading.Timer(0.1, ends[1].send, [("error", "KeyError: 'a'", 5.0)]).start()
    started = time.monotonic()
    with pytest.raises(RankError, match="KeyError" if late else "closed by peer"):
        launch._watch(made, nobody)
    assert late or 0.25 < time.monotonic() - started < 10
    assert WRECK == 3


def test_a_process_that_has_gone_without_a_word_is_looked_for_elsewhere():
    said = "closed by peer\nRankError: another process ended without a word; see the launcher's output"
    assert str(RankError(None, 2, "closed by peer")) == said


ITEM = Item(task="t", label="a", seed=0, base=Path())


def test_a_job_has_a_device_for_each_process_or_is_refused(monkeypatch, tmp_path):
    ready: Any = SimpleNamespace(defense=SimpleNamespace(workers=lambda: 2))
    monkeypatch.setattr(launch, "_together", lambda *told: told)

    with pytest.raises(BadInput, match="shared by 2 processes, each on a device of its own; there is cuda:0"):
        here(tmp_path, tmp_path, ["cuda:0"])(ITEM, ready, nobody)
    told = here(tmp_path, Path("data"), ["cuda:0", "cuda:1"])(ITEM, ready, nobody)
    assert told == (ITEM, tmp_path, Path("data"), ["cuda:0", "cuda:1"], nobody)


@pytest.mark.parametrize("fails", [False, True])
def test_no_process_connection_or_folder_is_left(monkeypatch, tmp_path, fails: bool):
    done: list[Any] = []

    class Started(Process):
        def __init__(self, *, target: Any, args: tuple[Any, ...], daemon: bool) -> None:
            super().__init__()
            assert (target, daemon) == (launch._serve, True)
            self.args = args
            done.append(self)

    def watch(made: list[Any], tell: Any) -> None:
        assert tell is nobody
        assert [rank.process.done for rank in made] == [[("start",)]] * 2
        assert [rank.number for rank in made] == [0, 1]
        assert not any(rank.connection.closed for rank in made)
        launch._write(done[0].args[-1] / "trained.pt", TRAINED)
        done.extend(rank.connection for rank in made)
        if fails:
            raise RankError(0, 2, "no")

    context = SimpleNamespace(Pipe=multiprocessing.Pipe, Process=Started)
    monkeypatch.setattr(multiprocessing, "get_context", lambda how: context if how == "spawn" else None)
    monkeypatch.setattr(launch, "_watch", watch)
    with pytest.raises(RankError) if fails else contextlib.nullcontext():
        assert same(launch._together(ITEM, tmp_path, Path("data"), ["cpu", "cuda:0"], nobody), TRAINED)

    for number, place in enumerate(("cpu", "cuda:0")):
        child, *told, folder = done[number].args
        assert told == [ITEM, tmp_path, Path("data"), place, number, 2]
        assert child.closed
        assert folder.name.startswith("advbench-")
        assert not folder.exists()
        assert done[number].done == [("start",), ("kill",), ("join",)]
    assert [connection.closed for connection in done[2:]] == [True, True]


def test_what_training_leaves_comes_back_as_it_was(tmp_path):
    launch._write(tmp_path / "t.pt", TRAINED)
    assert same(launch._read(tmp_path / "t.pt"), TRAINED)


@pytest.fixture
def served(monkeypatch, tmp_path, make_job):
    """A function: rank, device, what its training does -> what it sent, and what else it did in order."""
    job = make_job(task="t", label="a")
    item = Item(task="t", label="a", seed=0, base=tmp_path, job=job)
    folder = run_folder(tmp_path, item.path)
    folder.mkdir(parents=True)
    log: list[Any] = []
    ready = SimpleNamespace(subsets="subsets", defense="defense", model="model", collectors=["c"])

    @contextlib.contextmanager
    def joined(rank: int, world: int, device: torch.device, meet: str) -> Any:
        log.append(("joined", rank, world, str(device), meet))
        yield SimpleNamespace(first=rank == 0)
        log.append("left")

    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setattr(signal, "signal", lambda *told: log.append(told))
    monkeypatch.setattr(notice, "heed", lambda: log.append("heed"))
    monkeypatch.setattr(notice, "follow", lambda: log.append("follow"))
    monkeypatch.setattr(notice, "leave", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: log.append(("device", str(device))))
    monkeypatch.setattr(launch, "joined", joined)
    monkeypatch.setattr(launch, "prepare", lambda *told: (log.append(("prepare", *told[1:])), ready)[1])
    monkeypatch.setattr(launch, "verdicts", lambda *told: log.append(("verdicts", told[1:4])))

    def serve(rank: int, place: str, training: Any) -> tuple[list[Any], list[Any], Path]:
        def train(*told: Any) -> Trained:
            *what, checkpoint, tell, group, collectors = told
            assert what == [job, "subsets", "defense", "model"]
            assert (checkpoint, group.first, collectors) == (folder / "checkpoint.pt", rank == 0, ["c"])
            assert notice._Notice.awaited
            sys.stdout.write("trained here\n")
            tell("train", 1, 2, "x")
            return training()

        monkeypatch.setattr(launch, "train", train)
        sent: list[Any] = []
        connection: Any = SimpleNamespace(send=sent.append)
        launch._serve(connection, item, tmp_path, Path("data"), place, rank, 2, tmp_path)
        return sent, log, folder

    return serve


@pytest.mark.parametrize(("rank", "place"), [(0, "cpu"), (1, "cuda:1")])
def test_a_rank_trains_judges_and_says_that_it_is_done(served, tmp_path, rank: int, place: str):
    sent, log, folder = served(rank, place, lambda: TRAINED)

    assert sent == ([("tell", "train", 1, 2, "x")] if rank == 0 else []) + [("done",)]
    assert log == [
        (signal.SIGINT, signal.SIG_IGN),
        *("heed", "follow"),
        *([("device", place)] if place != "cpu" else []),
        ("joined", rank, 2, place, f"file://{tmp_path}/meet"),
        ("prepare", Path("data"), torch.device(place)),
        ("verdicts", (log[-2][1][0], TRAINED, folder)),
        "left",
    ]
    assert (tmp_path / "trained.pt").exists() == (rank == 0), "the first one writes"
    assert (folder / "log.txt").read_text("utf-8") == "trained here\n"
    assert os.environ.get("GLOO_SOCKET_IFNAME") == ("lo" if sys.platform == "linux" else None)


def failing(error: BaseException) -> Any:
    def training() -> Any:
        raise error

    return training


def test_a_rank_that_fails_says_why_before_it_leaves_the_group(served):
    sent, log, _ = served(1, "cpu", failing(Diverged("the loss is nan", (Epoch(**EPOCH),))))
    assert sent == [("diverged", "the loss is nan", [Epoch(**EPOCH).plain()])]
    sent, log, _ = served(1, "cpu", failing(SystemExit("no")))
    [(kind, error, since)] = sent
    assert (kind, error.splitlines()[-1]) == ("error", "SystemExit: no")
    assert 0 <= time.monotonic() - since < 60
    assert log[-1] == "left"
