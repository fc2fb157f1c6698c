"""`advbench evaluate` with helpers: the same record, whoever attacked which block, and nobody left at the end."""

from __future__ import annotations

import multiprocessing
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from outside_net import NETS
from slow_attack import SLOW

from advbench.assess import Where, _hands, assess
from advbench.execute import hands
from advbench.judging import ready_for
from advbench.outside import Asked
from advbench.record import load
from advbench.stable import stable

ASKED = Asked("nets.py:Net", Path("w.pth"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny) -> Path:
    """A folder to stand in, with a task of 8 blocks and a model that is often right."""
    monkeypatch.chdir(tmp_path)
    tiny(tmp_path, "t", ('attacks = ["fgsm"]', 'attacks = ["fgsm", { file = "slow.py" }]\nblock = 4\nalone = 8'))
    (tmp_path / "nets.py").write_text(NETS, "utf-8")
    (tmp_path / "slow.py").write_text(SLOW, "utf-8")
    rows = torch.eye(4).repeat_interleave(4, 1)  # class c is a bright row c
    torch.save({"head.weight": 20 * rows, "head.bias": torch.zeros(4)}, "w.pth")
    return tmp_path


def judged(results: str, jobs: int) -> None:
    where = Where(Path(results), Path("data"), "cpu")
    assess(ASKED, Path("t.toml"), None, None, None, where, as_json=False, jobs=jobs)


@pytest.mark.slow
def test_helpers_take_blocks_and_change_no_verdict(here: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    judged("alone", 1)
    calls = capsys.readouterr().out.count("pid ")
    monkeypatch.setattr(hands, "LONG", 0.0)
    monkeypatch.setenv("PAIR", str(here))
    judged("shared", 2)

    mine = capsys.readouterr().out.count("pid ")
    [log] = (here / "shared" / "runs").rglob("log.txt")
    theirs = re.findall(r"^pid (\d+)$", log.read_text("utf-8"), re.MULTILINE)
    assert mine > 0
    assert len(set(theirs)) == 1
    assert mine + len(theirs) == calls  # no block was attacked twice
    assert multiprocessing.active_children() == []
    one, other = (load(next((here / name).rglob("record.json"))) for name in ("alone", "shared"))
    assert stable(one) == stable(other)
    assert one.scores is not None
    assert one.scores.attacks["slow"] > 0.5


@pytest.mark.parametrize(("examples", "jobs", "count"), [(None, 3, 2), (None, 1, 0), (8, 5, 1), (4, 5, 0)])
def test_there_are_no_more_than_blocks_or_jobs(here: Path, examples: int | None, jobs: int, count: int):
    where = Where(Path("results"), Path("data"), "cpu")
    ready = ready_for(ASKED, Path("t.toml"), None, None, examples, where, None)

    assert _hands(ready, where, jobs) == ["cpu"] * count


def test_helpers_start_when_an_evaluation_has_gone_on_for_long_and_end_with_all_that_they_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    now, done = [100.0], list[object]()

    class Process:
        def __init__(self, target: object, args: tuple[object, ...]) -> None:
            self.device = args[2]
            done.append((target, args))

        def kill(self) -> None:
            done.append(("kill", self.device))

        def join(self) -> None:
            done.append(("join", self.device))

    monkeypatch.setattr(hands.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(hands.multiprocessing, "get_context", lambda _: SimpleNamespace(Process=Process))
    monkeypatch.setattr(hands, "start", lambda process: done.append(("start", process.device)))
    monkeypatch.setattr(hands, "family", lambda process: {len(process.device): "1"})
    monkeypatch.setattr(hands.limits, "kill", lambda members: done.append(("family", members)))
    log = tmp_path / "log.txt"
    with hands.Hands(["cpu", "cuda:1"], log, print, "of", "a job") as mine:
        now[0] += hands.LONG - 0.1
        mine.look()
        assert done == []
        now[0] = 100 + hands.LONG
        mine.look()
        mine.look()
        started = [
            *((hands._serve, (log, print, "cuda:1", "of", "a job")), ("start", "cuda:1")),
            *((hands._serve, (log, print, "cpu", "of", "a job")), ("start", "cpu")),
        ]
        assert done == started
    ends = [(("family", {len(d): "1"}), ("kill", d), ("join", d)) for d in ("cuda:1", "cpu")]
    assert done[4:] == [step for end in ends for step in end]


def test_a_helper_attends_to_its_caller_and_keeps_its_errors_in_the_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
):
    done: list[object] = []
    monkeypatch.setattr(hands, "attend", lambda: done.append("attends"))

    def helps(*told: object) -> None:
        done.append(told)
        raise ValueError("of its own")

    hands._serve(tmp_path / "log.txt", helps, "cpu", "told")
    assert done == ["attends", ("cpu", "told")]
    assert (tmp_path / "log.txt").read_text("utf-8").endswith("ValueError: of its own\n")
    assert capsys.readouterr().err == ""
