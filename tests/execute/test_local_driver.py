"""The driver on workers without processes: who gets which job, who helps, and who is looked after."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Scripted, busy, job

from advbench.execute import limits, local
from advbench.execute.local import TICK, Ended, Event, _Driver
from advbench.execute.packing import Packing
from advbench.plan import CUBLAS, Item
from advbench.spec import BadInput


def driver(events: list[Event], *workers: Scripted, queue: tuple[Item, ...] = ()) -> Any:
    made: Any = _Driver(list(queue), Path("results"), Path("root"), [], events.append)
    made.workers = list(workers)
    return made


def test_an_event_says_no_more_than_it_was_given():
    assert Event(job(), "start") == Event(job(), "start", done=0, total=0, words="", seconds=0)


def test_what_jobs_do_not_need_helps_once_on_each_accelerator():
    cuda = [f"cuda:{n}" for n in range(3)]
    made = _Driver([job("a"), job("b", processes=2)], Path(), Path(), [*cuda, *cuda, "cuda:3", "cuda:3"], print)
    assert (made.devices, made.spare) == (cuda, ["cuda:3"])
    made = _Driver([job("a")], Path(), Path(), ["cuda:0", "cuda:0"], print)
    assert (made.devices, made.spare) == (["cuda:0"], [])
    made = _Driver([job("a")], Path(), Path(), ["cpu"] * 3, print)
    assert (made.devices, made.spare) == (["cpu"], ["cpu"] * 2)


def test_every_job_is_started_heard_and_ended_once(clock: SimpleNamespace, events: list[Event]):
    class Obedient(Scripted):
        """Says one word of progress, and ends well at the second look."""

        def take(self, item: Item, others: list[Scripted], *, helps: bool = False) -> None:
            super().take(item, others, helps=helps)
            self.words = [("train", 1, 2, "w"), ("ok", 0, 0, f"clean {item.label}")]

    stopped: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "Worker", Obedient)
        made: Any = _Driver([job("a", 1), job("b", 3), job("c", 2)], Path(), Path(), ["cpu"] * 2, events.append)
        made.drive()
        made.stop()
        stopped = [worker.done[-2:] for worker in made.workers]
    assert made.ended == [Ended(f"t/{label}-s0", "ok", "") for label in ("a", "b", "c")]
    half = TICK / 2
    assert [(e.item.label, e.stage, e.done, e.total, e.words, e.seconds) for e in events if e.item.label != "b"] == [
        *(("a", "start", 0, 0, "", 0), ("a", "train", 1, 2, "w", half), ("a", "ok", 0, 0, "clean a", 2 * half)),
        *(("c", "start", 0, 0, "", 0), ("c", "train", 1, 2, "w", half), ("c", "ok", 0, 0, "clean c", 2 * half)),
    ]
    assert stopped == [["warn", "stop"]] * 2


def test_workers_are_looked_after_between_their_words(
    clock: SimpleNamespace, events: list[Event], monkeypatch: pytest.MonkeyPatch
):
    class Slow(Scripted):
        """Says nothing until it was looked at twice."""

        def poll(self) -> bool:
            return False

    looks: list[float] = []

    def watch(self: Any) -> None:
        looks.append(clock.now)
        if len(looks) == 3:
            self.workers[0].words = [("failed", 0, 0, "ValueError: no")]

    monkeypatch.setattr(local, "Worker", Slow)
    monkeypatch.setattr(_Driver, "_watch", watch)
    helped: list[float] = []
    monkeypatch.setattr(_Driver, "_help", lambda self: helped.append(clock.now))
    made: Any = _Driver([job()], Path(), Path(), ["cpu"], events.append)
    made.drive()
    assert made.ended == [Ended("t/d-s0", "failed", "ValueError: no")]
    # At once, and then whenever more than a tick has gone by; a wait takes half of one here.
    assert helped[:3] == [100.0, 100 + TICK / 2, 100 + TICK]
    assert looks[:3] == [100 + TICK / 2, 100 + 2 * TICK, 100 + 3.5 * TICK]


def test_a_run_refuses_what_it_cannot_watch_and_tells_its_workers_to_repeat_themselves(
    clock: SimpleNamespace, make_job, monkeypatch: pytest.MonkeyPatch
):
    class Gone(Exception):
        pass

    def take(self: Scripted, item: Item, others: list[Scripted]) -> None:
        raise Gone

    monkeypatch.setattr(Scripted, "take", take)
    plain, again = (job(label, job=make_job(label=label, deterministic=d)) for label, d in (("p", None), ("a", True)))
    name, value = CUBLAS
    for items, found in (([plain], None), ([job()], None), ([plain, again], value)):
        monkeypatch.delenv(name, raising=False)
        with pytest.raises(Gone):
            local.run(items, Path(), Path(), ["cpu"], print)
        assert os.environ.get(name) == found
    monkeypatch.setenv(name, ":16:8")
    with pytest.raises(Gone):
        local.run([again], Path(), Path(), ["cpu"], print)
    assert os.environ[name] == ":16:8"
    monkeypatch.setattr(limits, "watched", lambda: False)
    with pytest.raises(BadInput, match="does not say what a process takes"):
        local.run([job(memory_gib=1.0)], Path(), Path(), ["cpu"], print)


def test_a_worker_that_is_dead_or_spoilt_is_replaced_before_the_next_job(clock: SimpleNamespace, events: list[Event]):
    good, dead, spoilt = Scripted(), Scripted(), Scripted()
    dead.alive, spoilt.spoilt = False, True
    made = driver(events, good, dead, spoilt)
    assert made._fresh(good) is good
    for n, old in ((1, dead), (2, spoilt)):
        fresh = made._fresh(old)
        assert fresh is not old
        assert made.workers[n] is fresh
        assert (old.done, fresh.done) == (["stop"], [])


OWNER = job("owner")


@pytest.mark.parametrize(
    ("queue", "idle", "alike", "fits", "spare", "helper", "left"),
    [
        ((), True, ["cpu"], True, ["cpu"], "idle", ["cpu"]),
        ((), False, ["cpu"], True, ["cuda:9", "cpu", "cpu"], "hired", ["cuda:9", "cpu"]),
        ((), True, ["cpu"], False, ["cpu"], "hired", []),
        ((), True, [], True, ["cpu"], "", ["cpu"]),
        ((), False, ["cpu"], True, [], "", []),
        ((job("waits"),), True, ["cpu"], True, ["cpu"], "", ["cpu"]),
    ],
)
def test_help_comes_from_an_idle_worker_of_the_same_kind_with_room_or_from_a_spare_device(
    clock: SimpleNamespace,
    events: list[Event],
    queue: tuple[Item, ...],
    idle: bool,
    alike: list[str],
    fits: bool,
    spare: list[str],
    helper: str,
    left: list[str],
):
    owner = busy(OWNER)
    waiting = Scripted() if idle else busy(job("other"))
    made = driver(events, owner, waiting, queue=queue)
    asked = [owner]
    made.spare = list(spare)
    made.spread = SimpleNamespace(
        wanting=lambda workers: asked.pop() if asked else None, alike=lambda one, other: one in alike and other == "cpu"
    )
    made.packing = SimpleNamespace(fits=lambda item, worker, workers: fits)
    made._help()

    hired = made.workers[2:]
    told = [("take", "owner", True)]
    assert waiting.done == (told if helper == "idle" else [])
    assert [one.done for one in hired] == ([told] if helper == "hired" else [])
    assert all(one.device == "cpu" for one in hired)
    assert made.spare == left


def test_what_may_overtake_is_over_before_the_first_can_start(clock: SimpleNamespace):
    """By the plan's estimates, of which a tenth is forgiven."""

    def started(queue: list[Item], *workers: Scripted) -> list[str]:
        found: Any = local._next(queue, workers, Packing(["cpu"]))  # type: ignore[arg-type]
        return [found[0].label, *(str(workers.index(one)) for one in found[1])] if found else []

    pair, triple = job("pair", processes=2), job("triple", processes=3)
    first, second = busy(job("now"), busy_until=130.0), busy(job("now"), busy_until=150.0)
    for seconds, goes in ((30 / 0.9, True), (34, False), (20, True), (50, False)):
        assert started([pair, job("x", seconds)], Scripted(), first, second) == (["x", "0"] if goes else [])
    # Three idle at once: when the second of the two that work has ended.
    assert started([triple, job("x", 55)], Scripted(), first, second) == ["x", "0"]
    assert started([triple, job("x", 56)], Scripted(), first, second) == []
    # Two are idle and one is needed beside them: the first end decides.
    assert started([triple, job("x", 33)], Scripted(), Scripted(), first) == ["x", "0"]
    assert started([triple, job("x", 34)], Scripted(), Scripted(), first) == []
    # The last in the queue is the cheapest; one that is shared overtakes nobody.
    assert started([triple, job("x", 5), job("y", 4)], Scripted(), first, second) == ["y", "0"]
    assert started([triple, job("z", 1, processes=2)], Scripted(), first, second) == []
    assert started([job("alone"), pair], Scripted(), Scripted()) == ["alone", "0"]
    assert started([triple, job("x", 1)], Scripted(), Scripted()) == ["triple", "0", "1"]  # as many as there are
    assert started([], Scripted()) == []
    assert started([pair, job("x", 1)], first, second) == []  # nobody is idle
    # A job that has two workers ends for both of them.
    both = busy(job("now", processes=2), busy_until=130.0, others=[Scripted()])
    both.others[0].lent = True
    assert started([triple, job("x", 33)], Scripted(), both, both.others[0]) == ["x", "0"]


def test_who_share_a_job_are_taken_one_of_each_device_first():
    devices = ["cuda:0", "cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:2"]
    workers: Any = [Scripted(device=device) for device in devices]
    assert [workers.index(one) for one in local._apart(workers)] == [0, 2, 5, 1, 4, 3]


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (None, "exit code None"),
        (0, "exit code 0"),
        (1, "exit code 1"),
        (-1, "signal 1 (SIGHUP); out of memory is a common cause of SIGKILL"),
        (-15, "signal 15 (SIGTERM); out of memory is a common cause of SIGKILL"),
    ],
)
def test_how_a_process_ended_in_words(code: int | None, how: str):
    assert local.ending(code) == f"the worker process ended: {how}"


def test_a_short_job_goes_before_one_that_has_to_wait_and_a_long_one_does_not():
    def job(name: str, seconds: float, processes: int = 1) -> Item:
        return Item(task="t", label=name, seed=0, base=Path(), seconds=seconds, processes=processes)

    class Busy:
        def __init__(self, idle: bool, until: float = 0) -> None:
            self.idle, self.item, self.busy_until, self.others = idle, None if idle else job("now", 1), until, []
            self.device = "cpu"

    def order(*queue: Item, idle: int) -> list[str]:
        waiting = list(queue)
        workers = [*(Busy(True) for _ in range(idle)), Busy(False, time.monotonic() + 30)]
        found = iter(lambda: local._next(waiting, workers, Packing([])), None)  # type: ignore[arg-type]
        return [item.label for item, _ in found]

    shared, short, long = job("shared", 60, processes=2), job("short", 20), job("long", 40)
    assert order(shared, long, short, idle=1) == ["short"]
    assert order(shared, long, idle=1) == []
    assert order(long, shared, idle=1) == ["long"]
    assert order(shared, long, short, idle=2) == ["shared", "long", "short"]
    assert order(shared, idle=0) == []
