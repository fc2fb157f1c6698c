"""One more process, which holds this one to the limits of its job: for who has no driver that watches.

That is `advbench evaluate`, and each of the processes that a launcher has started. What takes too much here takes the
command with it: SIGTERM, which lets a training write its checkpoint, and SIGKILL for who does not hear that.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Self

from advbench.execute import limits
from advbench.execute.worker import start
from advbench.plan import Item

TICK = 0.5
"""Seconds between two looks."""


class Guard:
    """Inside, this process and all that it starts are held to the limits of `item`; a line on stderr says which."""

    def __init__(self, item: Item) -> None:
        self.item = item
        self.process: SpawnProcess | None = None

    def __enter__(self) -> Self:
        limits.refuse([self.item])
        if self.item.minutes is not None or self.item.memory_gib is not None:
            told = (os.getpid(), self.item)
            self.process = multiprocessing.get_context("spawn").Process(target=_watch, args=told)
            start(self.process)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process:
            self.process.kill()
            self.process.join()


def _watch(pid: int, item: Item) -> None:
    began = time.monotonic()
    while os.getppid() == pid:
        if found := limits.exceeded(item, pid, began):
            why, seconds = found
            family = limits.family(pid)
            family.pop(os.getpid(), None)  # off Linux nobody tells whom it started
            sys.stderr.write(f"advbench: {item.path}: {why}\n")
            sys.stderr.flush()
            os.kill(pid, signal.SIGTERM)
            until = time.monotonic() + seconds
            while os.getppid() == pid and time.monotonic() < until:
                time.sleep(0.05)
            limits.kill(family)
            return
        time.sleep(TICK)
