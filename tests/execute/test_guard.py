"""Limits where no driver watches: a process of its own does, says one line, and ends the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from outside_net import nets

from advbench.execute import guard, limits
from advbench.execute.guard import Guard, _watch
from advbench.plan import Item
from advbench.spec import BadInput

JOB = """\
import itertools, multiprocessing, os, signal, sys, time
from pathlib import Path
from advbench.execute.guard import Guard, _watch
from advbench.plan import Item

def work(how):
    if how == "sleeps":
        time.sleep(60)
    if how == "stuck":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        eaten = os.urandom(1) * 400_000_000
        sum(itertools.repeat(0))  # in C code, which lets no other thread run

if __name__ == "__main__":
    how, minutes, memory = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    with Guard(Item(task="t", label="l", seed=0, base=Path(), minutes=minutes, memory_gib=memory)):
        work(how)
    print(multiprocessing.active_children())
"""


@pytest.mark.parametrize(
    ("how", "minutes", "memory", "code", "why"),
    [
        ("sleeps", 0.02, 8, -signal.SIGTERM, "took more than 0.02 minutes; raise resources.minutes or"),
        ("stuck", 60, 0.3, -signal.SIGKILL, "took more than 0.3 GiB of memory; raise resources.memory_gib"),
        ("ends", 60, 8, 0, ""),
    ],
)
def test_who_takes_too_much_ends_with_one_line_and_all_that_it_started(
    tmp_path: Path, command_env, how: str, minutes: float, memory: float, code: int, why: str
):
    (tmp_path / "job.py").write_text(JOB, encoding="utf-8")
    asked = [sys.executable, "job.py", how, str(minutes), str(memory)]
    # Until nobody is left who has its pipes, and so not while a child of it lives.
    ended = subprocess.run(asked, cwd=tmp_path, env=command_env, capture_output=True, text=True, timeout=30)

    assert ended.returncode == code
    if why:
        [line] = ended.stderr.splitlines()
        assert line.startswith(f"advbench: t/l-s0: {why}")
    else:
        assert (ended.stdout, ended.stderr) == ("[]\n", "")


def test_a_job_without_limits_has_no_guard_and_one_that_nobody_can_watch_is_refused(monkeypatch: pytest.MonkeyPatch):
    free = Item(task="t", label="l", seed=0, base=Path())
    with Guard(free) as mine:
        assert mine.process is None
    monkeypatch.setattr(limits, "watched", lambda: False)
    with (
        pytest.raises(BadInput, match="does not say what a process takes"),
        Guard(free.model_copy(update={"memory_gib": 1.0})),
    ):
        pass


def test_where_nobody_tells_who_started_whom_the_process_itself_is_ended(monkeypatch: pytest.MonkeyPatch, capsys):
    ended: list[tuple[int, int]] = []
    parents = iter([1, 1, 2])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(os, "kill", lambda *told: ended.append(told))
    monkeypatch.setattr(limits, "exceeded", lambda *_: ("took more than it may", 1))
    monkeypatch.setattr(limits, "family", lambda pid: {pid: None})

    _watch(1, Item(task="t", label="l", seed=0, base=Path()))

    assert ended == [(1, signal.SIGTERM)]
    assert capsys.readouterr().err == "advbench: t/l-s0: took more than it may\n"


NETS = nets("if len(x) > 2:  # not when it is tried", "    time.sleep(60)")


def test_an_evaluation_is_held_to_its_task_s_minutes(tmp_path: Path, tiny, command):
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    torch.save({"head.weight": torch.eye(4, 16), "head.bias": torch.zeros(4)}, tmp_path / "w.pth")
    task = tiny(tmp_path, "t", more="[resources]\nminutes = 0.02\n")
    ended = command(tmp_path, "evaluate", "nets.py:Net", "--weights", "w.pth", "--task", task, "--data-root", "data")

    assert ended.returncode == -signal.SIGTERM
    [line] = ended.stderr.splitlines()
    assert line.startswith("advbench: t/nets-Net-w-s0: took more than 0.02 minutes; raise resources.minutes or")
    assert list((tmp_path / "results").rglob("record.json")) == []


class Clock:
    """A time that passes only by sleeping; `ended` is what was done to whom."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ended: list[object] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("leaves", "ended"),
    [
        # It looks every half second, and has seen the limit passed at the third look. It is killed after its 2 s.
        (1e9, [("asks", 7, signal.SIGTERM, 101.0), ("kills", {7: "1", 8: "2"}, 103.0)]),
        # With it its children end, whom nobody might find any more.
        (101.5, [("asks", 7, signal.SIGTERM, 101.0), ("kills", {7: "1", 8: "2"}, 101.5)]),
        (100.5, []),
    ],
)
def test_a_process_is_asked_to_end_once_and_killed_with_its_family_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys, leaves: float, ended: list[tuple[Any, ...]]
):
    clock, item = Clock(), Item(task="t", label="l", seed=0, base=Path())
    family = {7: "1", 8: "2", os.getpid(): "3"}
    monkeypatch.setattr(guard, "time", clock)
    monkeypatch.setattr(os, "getppid", lambda: 7 if clock.now < leaves else 1)
    monkeypatch.setattr(os, "kill", lambda *told: clock.ended.append(("asks", *told, clock.now)))
    monkeypatch.setattr(limits, "family", lambda pid: dict(family))
    monkeypatch.setattr(limits, "kill", lambda members: clock.ended.append(("kills", members, round(clock.now, 6))))

    def exceeded(*told: object) -> tuple[str, float] | None:
        assert told == (item, 7, 100.0)
        return ("took more than it may", 2.0) if clock.now >= 101 else None

    monkeypatch.setattr(limits, "exceeded", exceeded)
    _watch(7, item)

    assert [one if one[0] == "asks" else (*one[:2], pytest.approx(one[2], abs=0.06)) for one in ended] == clock.ended
    assert capsys.readouterr().err == ("advbench: t/l-s0: took more than it may\n" if ended else "")


@pytest.mark.parametrize(
    ("held", "has"),
    [({}, False), ({"minutes": 1.0}, True), ({"memory_gib": 1.0}, True), ({"minutes": 1.0, "memory_gib": 1.0}, True)],
)
def test_a_limit_of_either_kind_has_a_process_that_watches_and_ends_with_the_block(
    monkeypatch: pytest.MonkeyPatch, held: dict[str, Any], has: bool
):
    done: list[object] = []

    class Process:
        def __init__(self, target: object, args: object) -> None:
            done.append((target, args))

        def kill(self) -> None:
            done.append("kill")

        def join(self) -> None:
            done.append("join")

    monkeypatch.setattr(guard.multiprocessing, "get_context", lambda how: SimpleNamespace(Process=Process, how=how))
    monkeypatch.setattr(guard, "start", lambda process: done.append("start"))
    item = Item(task="t", label="l", seed=0, base=Path(), **held)
    with Guard(item) as mine:
        assert mine.item is item
        assert (mine.process is not None) == has
        assert done == ([(_watch, (os.getpid(), item)), "start"] if has else [])
    assert done[2:] == (["kill", "join"] if has else [])
