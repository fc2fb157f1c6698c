"""Notice to leave: a process that is asked to end (SIGTERM) while it trains writes its checkpoint first.

Whoever ends a machine sends SIGTERM and, some seconds later, SIGKILL: 10 s in many places. Outside a training there is
nothing to wait for, because journals are written as the work goes on.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

GRACE = 8
"""Seconds that a training has for it."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when the thread ends that has started it."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, in the process that a person or a scheduler has started."""


class _Notice:
    given = False
    awaited = False
    """Whether a checkpoint will come."""
    ended = False
    """Whether `told` has raised."""
    told = False
    """Whether this is the process that a person or a scheduler has started, which says so as it leaves."""


def follow() -> None:
    """In a process that multiprocessing has started: end when its parent does, in whatever way that was.

    The kernel sees to it on Linux, for in C code that holds the interpreter no other thread runs; a fork of
    multiprocessing's server ends with that one, which is tied to the parent (`execute.preloaded`). Elsewhere, and where
    the parent has ended already, a thread does.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    tie()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def tie() -> None:
    """Have the kernel end this process with the thread that has started it, where the kernel is Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def heed() -> None:
    """From now on SIGTERM ends this process after its next checkpoint, or at once outside `awaited`."""
    signal.signal(signal.SIGTERM, _hear)


@contextmanager
def heeded() -> Generator[None]:
    """`heed`, for as long as the block takes."""
    before = signal.signal(signal.SIGTERM, _hear)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def give() -> None:
    """Another process of this one's group was given notice, and so they all are."""
    _Notice.given = True


def given() -> bool:
    """Whether it is time for a checkpoint, the last one of this process."""
    return _Notice.given


def leave() -> None:
    """End this process, by the signal that it was given, if it was given one; where it was `told`, by Terminated."""
    if _Notice.given and _Notice.told:
        _Notice.given = False
        signal.alarm(0)
        raise Terminated
    if _Notice.given:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def awaited() -> Generator[None]:
    """Inside, a checkpoint will be written soon, and `leave` is called after it."""
    _Notice.awaited = True
    try:
        yield
    finally:
        _Notice.awaited = False
        leave()


@contextmanager
def told() -> Generator[None]:
    """Inside, SIGTERM raises Terminated, so that workers are ended as after Ctrl-C. Only the main thread hears it.

    Where a checkpoint is `awaited` of this very process, it does so after that, or after `GRACE`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    _Notice.told, _Notice.ended = True, False
    try:
        yield
    finally:
        _Notice.told = False
        signal.signal(signal.SIGTERM, before)


def _raise(number: int, _frame: FrameType | None) -> None:
    if _Notice.awaited and number == signal.SIGTERM:
        _Notice.given = True
        signal.signal(signal.SIGALRM, _raise)
        signal.alarm(GRACE)
        return
    _Notice.given, _Notice.ended = False, True
    raise Terminated


def terminated() -> bool:
    """Whether a KeyboardInterrupt in `told` was Terminated: some libraries raise one of their own in its place."""
    return _Notice.ended


def _hear(_number: int, _frame: FrameType | None) -> None:
    _Notice.given = True
    if not _Notice.awaited:
        leave()
    # Of processes that train together all have to know, and the first one writes.
    for child in multiprocessing.active_children():
        child.terminate()
    signal.alarm(GRACE)  # nobody hears that one: it ends the process
