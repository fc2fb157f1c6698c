"""How a node watches its worker, on one without a process and with a clock of its own; and which worker it keeps."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Scripted

from advbench import notice
from advbench.execute import limits, node
from advbench.execute.node import STOPPED, TICK
from advbench.execute.wire import Over, Piece, Refused, Said
from advbench.execute.worker import BEGUN, READY, UNWRITABLE
from advbench.plan import Item

JOB = Item(task="t", label="d", seed=0, base=Path())
KILLED = "the worker process ended: signal 9 (SIGKILL); out of memory is a common cause of SIGKILL"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Its `now` is the time."""
    told = SimpleNamespace(now=100.0)
    monkeypatch.setattr(time, "monotonic", lambda: told.now)
    return told


class Watched(Scripted):
    """A worker; who waits for a word of it waits as long as may be, and `script` is called then."""

    def __init__(self, clock: SimpleNamespace, script: Callable[[Watched], None] = lambda _: None) -> None:
        super().__init__()
        self.clock, self.script = clock, script

    def poll(self, timeout: float = 0) -> bool:
        if timeout and not self.words:
            self.clock.now += timeout
            self.script(self)
        return bool(self.words)

    def ask(self, why: str, seconds: float) -> None:
        super().ask(why, seconds)
        self.until = self.clock.now + seconds

    def kill(self) -> None:
        self.done.append("kill")
        self.alive = False


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Any], Any]]:
    """A function: worker, sent, leaving -> what is said, and its end; `leaving`: whether all must leave."""

    def run(worker: Watched, sent: Any = None, leaving: Callable[[], bool] = lambda: False) -> tuple[list[Any], Any]:
        def wait(refs: list[str], *, timeout: float, fetch_local: bool) -> tuple[list[str], list[str]]:
            assert (refs, timeout, fetch_local) == (["stop"], 0, False)  # a look that neither waits nor fetches
            return (refs, []) if leaving() else ([], refs)

        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(wait=wait))
        told: Any = SimpleNamespace(stop=("stop",))
        watched = node._watched(worker, JOB, told, sent)  # type: ignore[arg-type]
        said: list[Any] = []
        while True:
            try:
                said.append(next(watched))
            except StopIteration as end:
                return said, end.value

    return run


@pytest.mark.parametrize("stage", ["ok", "failed"])
def test_what_a_worker_says_is_passed_on_and_its_last_word_is_the_end(clock: SimpleNamespace, watch, stage: str):
    worker = Watched(clock)
    news = [(READY, 7, 0, ""), (BEGUN, 0, 0, ""), ("train", 1, 2, "w"), (stage, 0, 0, "words")]
    worker.words = [*news, ("train", 9, 9, "never heard")]
    assert watch(worker) == ([Said(*news[1]), Said(*news[2])], Said(*news[3]))
    assert worker.began == 100.0
    assert worker.done == [("take", "d", False), "end"]


def test_a_full_disk_is_the_node_s(clock: SimpleNamespace, watch):
    worker = Watched(clock)
    worker.words = [(UNWRITABLE, 0, 0, "x: cannot be written")]
    assert watch(worker) == ([], Refused(f"node {platform.node()}: x: cannot be written"))
    assert worker.done[-1] == "end"


@pytest.mark.parametrize("last", [[], [("train", 1, 2, "")], [("ok", 0, 0, "")]])
def test_of_one_that_died_what_it_had_said_comes_first(clock: SimpleNamespace, watch, last: list[Any]):
    def dies(worker: Watched) -> None:
        worker.alive = False

    def speaks_and_dies(worker: Watched) -> None:
        worker.alive, worker.words = False, [*last]
        worker.script = lambda _: None

    assert watch(Watched(clock, dies)) == ([], Over(KILLED, again=True))
    said, end = watch(Watched(clock, speaks_and_dies))
    if last and last[0][0] == "ok":
        assert (said, end) == ([], Said(*last[0]))
    else:
        assert (said, end) == ([Said(*word) for word in last], Over(KILLED, again=True))


def test_a_broken_connection_is_a_death(clock: SimpleNamespace, watch, monkeypatch: pytest.MonkeyPatch):
    worker = Watched(clock)
    monkeypatch.setattr(worker, "poll", lambda timeout=0: True)
    assert watch(worker)[1] == Over(KILLED, again=True)
    assert worker.done[1:] == [("join", 10), "end"]


def test_who_takes_too_much_is_asked_once_and_killed_when_its_time_is_over(
    clock: SimpleNamespace, watch, monkeypatch: pytest.MonkeyPatch
):
    looks: list[Any] = []

    def exceeded(item: Item, pid: int, began: float | None) -> tuple[str, float] | None:
        looks.append((clock.now, item, pid, began))
        return ("took too long", 1.0) if clock.now >= 101 else None

    monkeypatch.setattr(limits, "exceeded", exceeded)
    worker = Watched(clock)
    worker.began = 99.0
    assert watch(worker) == ([], Over("took too long", limit=True))
    assert looks == [(when, JOB, 5, 99.0) for when in (100 + TICK, 101.0)]
    assert worker.done == [("take", "d", False), ("ask", "took too long", 1.0), "kill", ("join", 10), "end"]
    # At 102 it may still end by itself; the next look is after that, and the one that finds it dead a tick later.
    assert clock.now == 102 + 2 * TICK


def test_when_all_have_to_leave_it_is_asked_to_and_its_end_needs_no_reason(clock: SimpleNamespace, watch):
    def leaves(worker: Watched) -> None:
        if clock.now >= 103:
            worker.alive = False

    worker = Watched(clock, leaves)
    assert watch(worker, leaving=lambda: clock.now >= 101) == ([], Over(""))
    assert worker.done == [("take", "d", False), ("ask", STOPPED, notice.GRACE + 1), ("join", 10), "end"]


def test_what_it_has_written_is_sent_when_it_is_due(clock: SimpleNamespace, watch):
    def ends(worker: Watched) -> None:
        if clock.now >= 104:
            worker.words = [("ok", 0, 0, "")]

    def changed() -> list[Piece]:
        sent.due = 103.0
        return [Piece(str(clock.now), b"", grows=False)]

    sent = SimpleNamespace(due=101.0, changed=changed)
    said, end = watch(Watched(clock, ends), sent)
    assert end == Said("ok", 0, 0, "")
    assert [piece.path for piece in said] == [str(101 + TICK), str(103 + TICK)]


@pytest.mark.parametrize(
    ("why", "code", "over"),
    [
        ("", None, Over("the worker process ended: exit code None", again=True)),
        ("", -9, Over(KILLED, again=True)),
        ("", 0, Over("the worker process ended: exit code 0", again=False)),
        ("", 1, Over("the worker process ended: exit code 1", again=False)),
        (STOPPED, -15, Over("", again=False)),
        ("took too long", -15, Over("took too long", again=False, limit=True)),
    ],
)
def test_who_was_killed_by_a_stranger_is_tried_again(clock: SimpleNamespace, why: str, code: int | None, over: Over):
    worker = Watched(clock)
    worker.why, worker.exitcode = why, code  # type: ignore[assignment]
    assert node._gone(worker) == over  # type: ignore[arg-type]
    assert worker.done == [("join", 10), "end"]


class Hand:
    """A worker process, as the node makes one."""

    def __init__(self, context: Any, results: Path, root: Path, device: str, serve: Any) -> None:
        self.method, self.place, self.serve = context.get_start_method(), (results, root, device), serve
        self.process, self.alive, self.spoilt = self, True, False
        self.file = vars(sys.modules["__main__"]).get("__file__")
        self.done: list[str] = []

    def is_alive(self) -> bool:
        return self.alive

    def kill(self) -> None:
        self.done.append("kill")

    def stop(self) -> None:
        self.done.append("stop")


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "Worker", Hand)
    monkeypatch.setattr(node, "_hand", None)
    monkeypatch.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": "0"})


def test_a_worker_is_kept_from_job_to_job_while_it_is_as_it_was_and_serves_the_same(hands: None):
    told: Any = SimpleNamespace(root=Path("root"), device="cpu", environment={"OMP_NUM_THREADS": "3"})

    def worker(serve: Any = None) -> Any:
        return node._worker(Path("results"), told, serve)

    one = worker()
    assert (one.method, one.place, one.serve) == ("spawn", (Path("results"), Path("root"), "cpu"), None)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert worker() is one
    assert one.done == []

    def replaced(old: Any, new: Any) -> Any:
        assert new is not old
        assert (old.done, new.done) == (["kill", "stop"], [])
        assert worker() is new
        return new

    one.spoilt = True
    two = replaced(one, worker())
    two.alive = False
    three = replaced(two, worker())
    told.root = Path("other")
    four = replaced(three, worker())
    os.environ["CUDA_VISIBLE_DEVICES"] = "1"
    five = replaced(four, worker())
    told.device = "cuda"
    shared = worker(print)  # one of those who share a job is always a new one
    assert five.done == ["kill", "stop"]
    assert (shared.serve, shared.place[2]) == (print, "cuda:0")
    assert worker(print) is not shared

    before = node._hand
    assert before is not None
    node._end()
    assert before[0].done == ["kill", "stop"]  # type: ignore[attr-defined]
    assert node._hand is None
    node._end()


@pytest.mark.parametrize("file", ["script.py", None])
def test_a_new_process_does_not_begin_with_this_one_s_script(
    hands: None, monkeypatch: pytest.MonkeyPatch, file: str | None
):
    main = SimpleNamespace(**({"__file__": file} if file else {}))
    monkeypatch.setitem(sys.modules, "__main__", main)
    told: Any = SimpleNamespace(root=Path(), device="cpu", environment={})
    one: Any = node._worker(Path(), told, None)
    assert one.file is None
    assert vars(main) == ({"__file__": file} if file else {})
