"""The driver on workers without processes: what it does with every word, silence and death of theirs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scripted import Scripted, busy, job

from advbench import run as running
from advbench.execute import limits
from advbench.execute.local import Ended, Event, _Driver
from advbench.execute.worker import BEGUN, HELPED, READY, UNWRITABLE
from advbench.plan import Item
from advbench.spec import BadInput

OWNER = job("owner")


def driver(events: list[Event], *workers: Scripted, queue: tuple[Item, ...] = ()) -> Any:
    made: Any = _Driver(list(queue), Path("results"), Path("root"), [], events.append)
    made.workers = list(workers)
    return made


def test_words_are_heard_of_who_works_or_has_yet_to_say_what_is_free(clock: SimpleNamespace, events: list[Event]):
    silent, forked, dead = busy(job("a")), busy(job("b")), busy(job("c"))
    forked.alive = dead.alive = False
    idle, gone, new = Scripted(), Scripted(), Scripted()
    gone.alive = new.ready = False
    last = busy(job("e"), alive=False)
    last.words = [("ok", 0, 0, "")]
    begun = Scripted()
    begun.ready, begun.words = False, [(READY, 7, 0, "")]
    made = driver(events, silent, idle, gone, new, dead, last, begun)
    heard: list[tuple[Scripted, bool]] = []
    made._hear = lambda worker, dead: heard.append((worker, dead))
    made._listen()
    # Of one that died, what it has said comes first; one without a job is asked nothing.
    assert heard == [(dead, True), (last, False), (begun, False)]


def test_the_end_of_a_job_may_be_that_of_its_helpers_in_the_same_round(clock: SimpleNamespace, events: list[Event]):
    owner, helper = busy(OWNER), busy(OWNER, helps=True)
    owner.words, helper.words = [("ok", 0, 0, "")], [("evaluate", 1, 2, "")]
    made = driver(events, owner, helper)
    made._listen()
    assert (owner.done, helper.done) == (["end"], ["kill", "end"])
    assert [event.stage for event in events] == ["ok"]


def test_of_all_who_work_those_who_help_with_that_job_end_with_it(clock: SimpleNamespace, events: list[Event]):
    owner, helper = busy(OWNER), busy(OWNER, helps=True)
    other, others = busy(job("other")), busy(job("other"), helps=True)
    made = driver(events, owner, helper, other, others, Scripted())
    made._over(helper)
    assert [one.done for one in made.workers] == [[], ["end"], [], [], []]
    assert made.spread.over == {OWNER.path}
    helper.item, helper.done = OWNER, []
    made.spread.over.clear()
    made._over(owner)
    assert [one.done for one in made.workers] == [["end"], ["kill", "end"], [], [], []]
    assert made.spread.over == set()


def test_what_a_worker_says_is_taken_down(clock: SimpleNamespace, events: list[Event]):
    measured: list[tuple[str, int | None]] = []
    one = busy(job(), started=90.0, ready=False)
    made = driver(events, one)
    made.packing = SimpleNamespace(measured=lambda *told: measured.append(told))
    for stage, when in (("train", 101.0), (BEGUN, 102.0), ("evaluate", 103.0), ("evaluate", 104.0)):
        clock.now = when
        one.words = [(stage, 3, 4, "w")]
        made._hear(one)
    assert (one.began, one.attacking) == (102.0, 103.0)
    assert [(e.stage, e.done, e.total, e.words, e.seconds) for e in events] == [
        *(("train", 3, 4, "w", 11.0), ("evaluate", 3, 4, "w", 13.0), ("evaluate", 3, 4, "w", 14.0)),
    ]
    one.words = [(READY, 70, 0, "")]
    made._hear(one)
    assert one.ready
    assert measured == [("cpu", 70)]
    one.words = [(UNWRITABLE, 0, 0, "the disk is full")]
    with pytest.raises(BadInput, match="the disk is full"):
        made._hear(one)
    one.words = [("failed", 0, 0, "ValueError: no")]
    made._hear(one)
    assert made.ended == [Ended("t/d-s0", "failed", "ValueError: no")]
    assert (events[-1].words, events[-1].seconds) == ("ValueError: no", 14.0)


def test_a_helper_s_last_word_and_its_death_end_no_job(clock: SimpleNamespace, events: list[Event]):
    for words in ([(HELPED, 0, 0, "")], []):
        helper = busy(job(), helps=True, words=words)
        made = driver(events, helper)
        made._hear(helper)
        assert helper.done[-1] == "end"
        assert (made.ended, events) == ([], [])
        assert made.spread.over == {"t/d-s0"}


@pytest.mark.parametrize("why", ["", "took too long"])
def test_a_worker_that_dies_fails_its_job_by_what_it_was_asked_to_end_for_or_by_its_signal(
    clock: SimpleNamespace, events: list[Event], make_job, monkeypatch: pytest.MonkeyPatch, why: str
):
    told: list[Any] = []
    monkeypatch.setattr(
        running,
        "failed",
        lambda made, results, error: (told.append((made, results, error)), SimpleNamespace(reason="r"))[1],
    )
    item, measured = job(job=make_job()), list[Any]()
    one = busy(item, started=90.0, ready=False, why=why)
    made = driver(events, one)
    made.packing = SimpleNamespace(measured=lambda *told: measured.append(told))
    one.words = [("train", 0, 0, "said by a child that it left behind")]
    made._hear(one, dead=True)

    killed = "the worker process ended: signal 9 (SIGKILL); out of memory is a common cause of SIGKILL"
    assert told == [(item.job, Path("results"), why or killed)]
    assert made.ended == [Ended("t/d-s0", "failed", "r")]
    assert [(event.stage, event.words, event.seconds) for event in events] == [("failed", "r", 10.0)]
    assert one.ready  # nothing more is to be heard of it
    assert measured == [("cpu", None)]
    assert ("join", 10) in one.done  # a moment for its exit code


def test_one_without_a_job_that_dies_is_only_noted(clock: SimpleNamespace, events: list[Event]):
    one = Scripted()
    made = driver(events, one)
    made.packing = SimpleNamespace(measured=lambda *_: pytest.fail("it has said what is free"))
    made._hear(one)
    assert (one.done, made.ended, events) == ([("join", 10)], [], [])


@pytest.mark.parametrize(
    ("fields", "exceeded", "done"),
    [
        ({}, None, []),
        ({}, ("took too long", 9), [("ask", "took too long", 9)]),
        ({"item": None}, ("took too long", 9), []),
        ({"why": "took too long", "until": 100.5}, ("took too long", 9), []),
        ({"why": "took too long", "until": 99.5}, ("took too long", 9), ["kill"]),
    ],
)
def test_who_takes_too_much_is_asked_once_and_killed_when_its_time_is_over(
    clock: SimpleNamespace,
    events: list[Event],
    monkeypatch: pytest.MonkeyPatch,
    fields: dict[str, Any],
    exceeded: tuple[str, float] | None,
    done: list[Any],
):
    asked: list[Any] = []
    monkeypatch.setattr(limits, "exceeded", lambda *told: (asked.append(told), exceeded)[1])
    working: dict[str, Any] = {"item": job(), "began": 40.0}
    one = busy(**(working | fields))
    driver(events, one)._watch()
    assert one.done == done
    assert asked in ([], [(job(), 5, 40.0)])
