"""What a process does with SIGTERM, step by step, with signals that nobody gets."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from advbench import notice
from advbench.notice import Terminated


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the system is asked for, which it does not do."""
    made: list[Any] = []
    for name in ("given", "awaited", "ended", "told"):
        assert getattr(notice._Notice, name) is False, "nobody was given notice"
        monkeypatch.setattr(notice._Notice, name, False)
    monkeypatch.setattr(signal, "signal", lambda *told: made.append(told) or "before")
    monkeypatch.setattr(signal, "alarm", lambda seconds: made.append(("alarm", seconds)))
    monkeypatch.setattr(os, "kill", lambda *told: made.append(("kill", *told)))
    return made


def test_a_process_ends_with_its_parent(monkeypatch, calls: list[Any]):
    asked: list[Any] = []
    threads: list[Any] = []

    class Thread:
        def __init__(self, *, target: Any, daemon: bool) -> None:
            assert daemon
            self.target = target

        def start(self) -> None:
            threads.append(self.target)

    parent = SimpleNamespace(join=lambda: asked.append("joined"))
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: parent)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(prctl=lambda *told: asked.append((name, *told))))
    monkeypatch.setattr(threading, "Thread", Thread)
    monkeypatch.setattr(os, "_exit", lambda code: asked.append(("exit", code)))
    monkeypatch.setattr(sys, "platform", "linux")
    notice.follow()
    assert asked == [(None, 1, signal.SIGKILL, 0, 0, 0)]  # PR_SET_PDEATHSIG is 1 in linux/prctl.h
    threads.pop()()
    assert asked[1:] == ["joined", ("exit", 1)]

    asked.clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    notice.follow()
    assert (asked, len(threads)) == ([], 1)
    assert calls == []


def test_heeding_lasts_as_long_as_it_is_asked_for(calls: list[Any]):
    notice.heed()
    assert calls == [(signal.SIGTERM, notice._hear)]
    with pytest.raises(ZeroDivisionError), notice.heeded():
        raise ZeroDivisionError
    assert calls[1:] == [(signal.SIGTERM, notice._hear), (signal.SIGTERM, "before")]


def test_a_worker_ends_by_the_signal_and_outside_a_training_at_once(calls: list[Any]):
    notice.leave()
    assert calls == [], "nobody was given notice"
    notice._hear(signal.SIGTERM, None)
    assert calls == [(signal.SIGTERM, signal.SIG_DFL), ("kill", os.getpid(), signal.SIGTERM), *calls[2:]]
    assert notice.given()


def test_a_training_has_eight_seconds_and_its_helpers_are_told(monkeypatch, calls: list[Any]):
    ended: list[int] = []
    children = [SimpleNamespace(terminate=lambda n=n: ended.append(n)) for n in range(2)]
    monkeypatch.setattr(multiprocessing, "active_children", lambda: children)
    with notice.awaited():
        notice._hear(signal.SIGTERM, None)
        assert (calls, ended, notice.given()) == ([("alarm", 8)], [0, 1], True)
    assert calls[1:] == [(signal.SIGTERM, signal.SIG_DFL), ("kill", os.getpid(), signal.SIGTERM)]


def test_one_of_a_group_is_given_notice_by_another(calls: list[Any]):
    assert not notice.given()
    notice.give()
    assert notice.given()
    assert calls == []


def test_the_process_of_a_person_raises_after_its_checkpoint(calls: list[Any]):
    def training() -> None:
        with notice.told(), notice.awaited():
            assert calls == [(signal.SIGTERM, notice._raise)]
            notice._raise(signal.SIGTERM, None)
            assert calls[1:] == [(signal.SIGALRM, notice._raise), ("alarm", 8)]
            assert notice.given()
            assert not notice.terminated()

    with pytest.raises(Terminated):
        training()
    assert calls[3:] == [("alarm", 0), (signal.SIGTERM, "before")]
    assert not notice.given()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGALRM])
def test_it_raises_at_once_where_no_checkpoint_comes_or_comes_too_late(calls: list[Any], number: int):
    notice._Notice.awaited = notice._Notice.given = number == signal.SIGALRM
    with pytest.raises(Terminated), notice.told():
        notice._raise(number, None)
    assert notice.terminated()
    assert not notice.given()
    assert calls == [(signal.SIGTERM, notice._raise), (signal.SIGTERM, "before")]
    notice._Notice.awaited = False
    with notice.told():
        assert not notice.terminated(), "that was another time"
    notice.give()
    notice.leave()
    assert calls[-1] == ("kill", os.getpid(), signal.SIGTERM), "no longer told"


def test_a_thread_hears_no_signal(calls: list[Any]):
    def inside() -> None:
        with notice.told():
            calls.append("inside")

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert calls == ["inside"]
