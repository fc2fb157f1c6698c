"""A worker as its driver handles it: how it is started, what is sent and noted, and how it is ended."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from advbench import machine, notice
from advbench.execute import limits, worker
from advbench.execute.worker import Worker
from advbench.plan import Item

RESULTS, ROOT = Path("results"), Path("root")


class End:
    """An end of a pipe."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed = self.broken = False

    def send(self, news: Any) -> None:
        if self.broken:
            raise BrokenPipeError
        self.sent.append(news)

    def close(self) -> None:
        self.closed = True


class Process:
    """A process that ends when it is asked to, or only when it is killed."""

    pid = 2**22 + 1

    def __init__(self, target: Any, args: tuple[Any, ...]) -> None:
        self.target, self.args = target, args
        self.heard: list[Any] = []
        self.alive, self.stubborn = True, False

    def start(self) -> None:
        self.heard.append(("start", signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])))

    def is_alive(self) -> bool:
        return self.alive

    def terminate(self) -> None:
        self.heard.append("terminate")
        self.alive = self.stubborn

    def kill(self) -> None:
        self.heard.append("kill")
        self.alive = False

    def join(self, timeout: float | None = None) -> None:
        self.heard.append(("join", timeout))


class Context:
    """What makes them."""

    def Pipe(self) -> tuple[End, End]:  # noqa: N802  as multiprocessing calls it
        self.here, self.there = End(), End()
        return self.here, self.there

    def Process(self, target: Any, args: tuple[Any, ...]) -> Process:  # noqa: N802  likewise
        self.process = Process(target, args)
        return self.process


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[limits.Family]:
    """Whom `limits.kill` was given; every process has one child, and it is 100 s."""
    found: list[limits.Family] = []
    monkeypatch.setattr(limits, "kill", found.append)
    monkeypatch.setattr(limits, "family", lambda pid: {pid: "1", pid + 1: "2"})
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    return found


FAMILY = {Process.pid: "1", Process.pid + 1: "2"}


def made(device: str = "cpu", serve: Any = None) -> tuple[Any, Process, End]:
    """A worker, its process and its connection."""
    context: Any = Context()
    return Worker(context, RESULTS, ROOT, device, serve), context.process, context.here


def job(label: str = "d", seconds: float = 7) -> Item:
    return Item(task="t", label=label, seed=0, base=Path(), seconds=seconds)


def test_a_new_worker_has_begun_to_run_and_nothing_to_do():
    context: Any = Context()
    one = Worker(context, RESULTS, ROOT, "cuda:1")
    assert context.process.target is worker._begin
    assert context.process.args == (dict(os.environ), worker._serve, context.there, RESULTS, ROOT, "cuda:1")
    assert made(serve=print)[1].args[1] is print
    assert [what for what, _ in context.process.heard] == ["start"]
    assert (context.there.closed, context.here.closed) == (True, False)  # else nobody would hear of its death
    told = {name: value for name, value in vars(one).items() if name not in ("connection", "process")}
    idle = {"item": None, "helps": False, "started": 0.0, "began": None, "attacking": None, "others": []}
    fresh = {"lent": False, "spoilt": False, "why": "", "until": float("inf"), "family": {}}
    assert told == {"device": "cuda:1", "ready": False, **idle, **fresh}
    assert (one.idle, one.busy_until) == (True, 0.0)
    assert made("cpu")[0].ready


def test_a_job_takes_its_worker_and_the_devices_of_others_until_it_ends(killed: list[limits.Family]):
    (one, _, connection), (other, _, _) = made("cuda:0"), made("cuda:1")
    one.began = one.attacking = 3.0
    shared = job()
    one.take(shared, [other])

    assert connection.sent == [(shared, False, ["cuda:0", "cuda:1"])]
    assert (one.item, one.helps, one.others, one.busy_until) == (shared, False, [other], 107.0)
    assert (one.began, one.attacking, one.spoilt) == (None, None, False)
    assert (one.idle, other.idle, other.lent) == (False, False, True)
    one.end()
    assert (one.item, one.others, one.spoilt) == (None, [], False)
    assert (one.idle, other.idle) == (True, True)
    assert killed == []

    one.take(shared, [], helps=True)
    assert one.helps
    assert connection.sent[1:] == [(shared, True, ["cuda:0"])]


def test_one_that_died_this_moment_is_heard_of_later():
    one, _, connection = made()
    connection.broken = True
    one.take(job(), [])
    assert one.item == job()


def test_who_is_asked_to_end_has_so_many_seconds_and_takes_its_family_along(killed: list[limits.Family]):
    one, process, _ = made()
    one.take(job(), [])
    one.ask("took too long", 9)
    assert (one.why, one.until, one.family) == ("took too long", 109.0, FAMILY)
    assert process.heard[1:] == ["terminate"]
    assert killed == []
    one.end()
    assert killed == [FAMILY]
    assert one.spoilt


def test_who_is_killed_takes_its_family_along(killed: list[limits.Family]):
    one, process, _ = made()
    one.kill()
    assert process.heard[1:] == ["kill"]
    assert killed == [FAMILY]


@pytest.mark.parametrize("warned", [False, True])
@pytest.mark.parametrize("stubborn", [False, True])
def test_a_worker_is_stopped_after_its_checkpoint_or_without_it(
    killed: list[limits.Family], warned: bool, stubborn: bool
):
    one, process, connection = made()
    process.stubborn = stubborn
    if warned:
        one.warn()
    one.stop()
    waited = ("join", notice.GRACE + 1)
    assert process.heard[1:] == ["terminate", waited, *(["kill", ("join", None)] if stubborn else [])]
    assert killed == ([FAMILY] if stubborn else []) + [FAMILY]
    assert connection.closed


def test_ctrl_c_waits_while_a_process_is_born_and_torch_gets_one_thread(monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    process: Any = Process(print, ())
    monkeypatch.setattr(worker.resource_tracker, "ensure_running", lambda: order.append("tracker"))
    monkeypatch.setattr(process, "start", lambda start=process.start: (order.append("process"), start()))
    for before, after in ((None, "1"), ("3", "3")):
        if before is None:
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        else:
            monkeypatch.setenv("OMP_NUM_THREADS", before)
        worker.start(process)
        assert os.environ["OMP_NUM_THREADS"] == after
    assert order == ["tracker", "process"] * 2
    assert process.heard == [("start", True)] * 2
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_new_process_leaves_ctrl_c_to_its_driver_heeds_sigterm_and_ends_with_it(monkeypatch: pytest.MonkeyPatch):
    done: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *told: done.append(told))
    monkeypatch.setattr(notice, "heed", lambda: done.append("heeds"))
    monkeypatch.setattr(notice, "follow", lambda: done.append("follows"))
    worker.attend()
    assert done == [(signal.SIGINT, signal.SIG_IGN), "heeds", "follows"]


@pytest.mark.parametrize(
    ("given", "count", "places"),
    [
        (["cpu"], 3, ["cpu"] * 3),
        (["cpu", "cuda:0"], 2, ["cpu"] * 2),
        (["cuda:1", "cpu"], 1, ["cuda:1"]),
        (["cuda:1"], 2, ["cuda:1", "cuda:0"]),
        (["cuda:0", "cuda:0"], 3, ["cuda:0", "cuda:1"]),
    ],
)
def test_a_shared_job_has_the_cpu_as_often_as_it_needs_and_each_accelerator_once(
    monkeypatch: pytest.MonkeyPatch, given: list[str], count: int, places: list[str]
):
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0", "cuda:1"])
    assert worker._places(given, count) == places
