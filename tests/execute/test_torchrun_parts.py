"""A process of a launcher, in pieces: its place, its device, what the first one leads and the others follow."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advbench import parallel, prepare, run, train, verdicts
from advbench.execute import torchrun
from advbench.execute.local import Ended, Event
from advbench.execute.torchrun import Place, place
from advbench.launch import RankError
from advbench.plan import Item
from advbench.spec import BadInput

GOOD = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, Place(0, 2, 0)),
        ({"RANK": "1"}, Place(1, 2, 1)),
        ({"RANK": "1", "LOCAL_RANK": "0"}, Place(1, 2, 0)),
        ({"MASTER_PORT": "0"}, Place(0, 2, 0)),
        ({"MASTER_PORT": "65535"}, Place(0, 2, 0)),
        ({"RANK": None}, None),
        ({"WORLD_SIZE": None}, None),
        ({"RANK": "-1"}, "RANK should be 0 to 1, below WORLD_SIZE, not -1"),
        ({"RANK": "2"}, "RANK should be 0 to 1, below WORLD_SIZE, not 2"),
        ({"MASTER_PORT": "-1"}, "MASTER_PORT should be 0 to 65535, not -1"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT should be 0 to 65535, not 65536"),
        (
            {"MASTER_PORT": None},
            "RANK and WORLD_SIZE are set, but not MASTER_PORT; start with torchrun, or unset them",
        ),
    ],
)
def test_a_place_is_what_the_launcher_says_or_a_line(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], found: Place | str | None
):
    told = {name: value for name, value in (GOOD | changes).items() if value is not None}
    monkeypatch.setattr(os, "environ", told)
    if isinstance(found, str):
        with pytest.raises(BadInput) as caught:
            place()
        assert caught.value.lines == (found,)
    else:
        assert place() == found


@pytest.mark.parametrize(
    ("device", "accelerators", "local", "found"),
    [
        ("auto", 0, 5, "cpu"),
        ("auto", 2, 1, "cuda:1"),
        ("cuda", 2, 0, "cuda:0"),
        ("cpu", 2, 5, "cpu"),
        ("auto", 2, 2, "torchrun started process 2 on this machine, whose devices are 0 to 1"),
        ("cuda", 0, 0, "--device cuda: not on this machine"),
        (
            "cuda:1",
            2,
            1,
            "--device cuda:1: under torchrun every process has a device of its own; say auto, cpu or cuda",
        ),
    ],
)
def test_every_process_has_the_device_of_its_number(
    monkeypatch: pytest.MonkeyPatch, device: str, accelerators: int, local: int, found: str
):
    done: list[Any] = []

    @contextmanager
    def joined(*told: Any) -> Generator[str]:
        done.append(told)
        yield "group"

    monkeypatch.setattr(parallel, "joined", joined)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: accelerators > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: accelerators)
    monkeypatch.setattr(torch.cuda, "set_device", lambda which: done.append(which))
    if found.startswith(("torchrun", "--")):
        with pytest.raises(BadInput) as caught, torchrun._joined(Place(3, 6, local), device):
            pass
        assert caught.value.lines == (found,)
        assert done == []
    else:
        mine = torch.device(found)
        with torchrun._joined(Place(3, 6, local), device) as joint:
            assert joint == ("group", mine)
        assert done == [*([mine] if mine.type == "cuda" else []), (3, 6, mine, "env://")]


class Group:
    """A group whose first process hands out these jobs, and then nothing."""

    rank, world = 0, 2

    def __init__(self, *jobs: Item, left: tuple[int, str] | None = None) -> None:
        self.jobs, self.left = list(jobs), left
        self.heard: list[Any] = []
        self.failed: list[str] = []

    def told(self, value: Item | None) -> Item | None:
        self.heard.append(value)
        return self.jobs.pop(0) if self.jobs else None

    def fail(self, why: str) -> None:
        self.failed.append(why)

    def failure(self) -> tuple[int, str] | None:
        return self.left


READY = SimpleNamespace(subsets="subsets", defense="defense", model="model", collectors="collectors")
CPU = torch.device("cpu")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was called of the parts of a job; `train` ends as the job's label says."""
    found: list[Any] = []

    def trains(job: Any, *how: Any) -> str:
        found.append(("train", job.label, *how))
        if job.label == "diverges":
            raise train.Diverged("NaN", ())
        if job.label == "breaks":
            raise ValueError("of its own")
        return "trained"

    @contextmanager
    def guard(item: Item) -> Generator[None]:
        found.append(("guard", item.label))
        yield

    monkeypatch.setattr(torchrun, "Guard", guard)
    monkeypatch.setattr(prepare, "prepare", lambda item, *how: (found.append(("prepare", item.base, *how)), READY)[1])
    monkeypatch.setattr(train, "train", trains)
    monkeypatch.setattr(verdicts, "verdicts", lambda job, *how: found.append(("verdicts", job.label, *how)))
    return found


@pytest.fixture
def job(make_job) -> Callable[..., Item]:
    """A function: label, seconds -> a job of two processes."""

    def make(label: str, seconds: float = 0) -> Item:
        item = Item(task="t", label=label, seed=0, base=Path("home"), processes=2, seconds=seconds)
        return item.model_copy(update={"job": make_job(label=label)})

    return make


def joined(monkeypatch: pytest.MonkeyPatch, group: Group) -> None:
    @contextmanager
    def fake(here: Place, device: str) -> Generator[tuple[Group, torch.device]]:
        assert (here, device) == (Place(1, 2, 1), "cpu")
        yield group, CPU

    monkeypatch.setattr(torchrun, "_joined", fake)


@pytest.mark.parametrize("base", [None, Path("elsewhere")])
def test_the_others_take_part_in_every_job_until_there_is_none(
    monkeypatch: pytest.MonkeyPatch, done: list[Any], job, base: Path | None
):
    group = Group(job("diverges"), job("a"))
    joined(monkeypatch, group)
    begun: list[int] = []
    assert torchrun.follow(Place(1, 2, 1), "cpu", Path("root"), base, lambda: begun.append(len(group.heard))) == 0

    assert group.heard == [None] * 3
    assert begun == [1, 2], "as soon as a job is shared, and not while it waits for one"
    ready = ("prepare", base or Path("home"), Path("root"), CPU)
    nobody = done[2][6]
    assert nobody("train", 1, 2, "") is None
    how = (Path(), nobody, group, "collectors")
    trained = ("subsets", "defense", "model", *how)
    assert done[:3] == [("guard", "diverges"), ready, ("train", "diverges", *trained)]
    nobody = done[5][6]
    trained = ("subsets", "defense", "model", Path(), nobody, group, "collectors")
    assert done[3:] == [
        *(("guard", "a"), ready, ("train", "a", *trained)),
        ("verdicts", "a", READY, "trained", Path(), nobody, group),
    ]


def test_one_of_them_that_fails_says_so_to_all_and_ends(monkeypatch: pytest.MonkeyPatch, done: list[Any], job, capsys):
    group = Group(job("breaks"), job("a"))
    joined(monkeypatch, group)
    assert torchrun.follow(Place(1, 2, 1), "cpu", Path("root")) == 1
    [why] = group.failed
    assert why.splitlines()[-1] == "ValueError: of its own"
    assert capsys.readouterr().err == why
    assert group.heard == [None]


def test_the_others_are_let_go_at_the_end_unless_one_has_gone(monkeypatch: pytest.MonkeyPatch):
    for broken in (False, True):
        group = Group()
        joined(monkeypatch, group)
        with torchrun.lead(Place(1, 2, 1), "cpu") as execute:
            execute.__self__.broken = broken  # type: ignore[attr-defined]
        assert group.heard == ([] if broken else [None])


@pytest.mark.parametrize("broken", [False, True])
def test_the_first_process_runs_one_job_after_the_other_while_all_are_there(
    monkeypatch: pytest.MonkeyPatch, done: list[Any], job, capsys, broken: bool
):
    now, events = [100.0], list[Event]()
    crew: Any = torchrun._Crew(Group(), CPU)  # type: ignore[arg-type]
    assert crew.broken is False

    def attempt(item: Item, results: Path, root: Path, device: torch.device, tell: Callable[..., None], share: Any):
        done.append((item.label, results, root, device, share))
        now[0] += 3
        tell("train", 1, 2, "w")
        now[0] += 4
        crew.broken = broken
        error = "ValueError: no" if item.label == "b" else None
        return SimpleNamespace(
            status="failed" if error else "ok", reason=error or "r", error=error, findings=None, scores=None
        )

    monkeypatch.setattr(torchrun.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run, "attempt", attempt)
    crew._share = lambda results: f"share of {results}"
    ended = crew.run([job("a", 3), job("b", 1)], Path("results"), Path("root"), ["unused"], events.append)

    order = ["b"] if broken else ["b", "a"]  # the cheapest first
    told = {"b": ("failed", "ValueError: no"), "a": ("ok", "")}
    assert done == [
        one
        for label in order
        for one in (("guard", label), (label, Path("results"), Path("root"), CPU, "share of results"))
    ]
    assert [(e.item.label, e.stage, e.done, e.total, e.words, e.seconds) for e in events] == [
        one
        for label in order
        for one in (
            *((label, "start", 0, 0, "", 0), (label, "train", 1, 2, "w", 3.0)),
            (label, told[label][0], 0, 0, told[label][1], 7.0),
        )
    ]
    assert ended == [
        Ended(f"t/{label}-s0", told[label][0], "ValueError: no" if label == "b" else "r") for label in order
    ]
    gone = "a process of the group has gone: the other jobs are left for the next run\n"
    assert capsys.readouterr().err == (gone if broken else "")


def test_a_shared_job_is_told_to_all_trained_and_judged_together(done: list[Any], job, tmp_path: Path):
    group, item = Group(), job("a")
    crew: Any = torchrun._Crew(group, CPU)  # type: ignore[arg-type]
    assert crew._share(tmp_path)(item, READY, print) == "trained"
    folder = tmp_path / "runs" / "t" / "a-s0"
    assert group.heard == [item]
    assert done == [
        ("train", "a", "subsets", "defense", "model", folder / "checkpoint.pt", print, group, "collectors"),
        ("verdicts", "a", READY, "trained", folder, print, group),
    ]
    with pytest.raises(train.Diverged):
        crew._share(tmp_path)(job("diverges"), READY, print)
    assert not crew.broken  # all say it together


@pytest.mark.parametrize(
    ("left", "line"),
    [(None, "rank 0 of 2: ValueError: of its own"), ((1, "KeyError: first"), "rank 1 of 2: KeyError: first")],
)
def test_who_failed_first_is_named_and_a_launcher_s_sigterm_waits_for_the_record(
    monkeypatch: pytest.MonkeyPatch, done: list[Any], job, tmp_path: Path, left: tuple[int, str] | None, line: str
):
    heard: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *told: heard.append(told))
    crew: Any = torchrun._Crew(Group(left=left), CPU)  # type: ignore[arg-type]
    with pytest.raises(RankError) as caught:
        crew._share(tmp_path)(job("breaks"), READY, print)
    assert str(caught.value).endswith(f"RankError: {line}")
    assert crew.broken is True
    assert (signal.SIGTERM, signal.SIG_IGN) in heard
