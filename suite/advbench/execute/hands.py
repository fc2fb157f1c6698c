"""Processes that take a part of this one's evaluation: for who evaluates without workers."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from advbench.execute import limits
from advbench.execute.spread import LONG
from advbench.execute.worker import attend, family, into, start


class Hands:
    """One more process for each of `devices`, which calls `help_(device, *told)` once the evaluation turns out long.

    They end with the block. What they raise stands in `log` only: whose evaluation it is meets the same, and says it.
    """

    def __init__(self, devices: Sequence[str], log: Path, help_: Callable[..., None], *told: Any) -> None:
        self.devices, self.log, self.help, self.told = list(devices), log, help_, told
        self.due = time.monotonic() + LONG
        self.processes: list[SpawnProcess] = []

    def __enter__(self) -> Self:
        return self

    def look(self) -> None:
        """Called now and then: start them when it is time."""
        if time.monotonic() < self.due:
            return
        context = multiprocessing.get_context("spawn")
        while self.devices:
            told = (self.log, self.help, self.devices.pop(), *self.told)
            self.processes.append(context.Process(target=_serve, args=told))
            start(self.processes[-1])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self.processes:
            limits.kill(family(process))  # they write nothing but the journal, and that in one piece
            process.kill()
            process.join()


def _serve(log: Path, help_: Callable[..., None], device: str, *told: Any) -> None:
    attend()
    with into(log):
        try:
            help_(device, *told)
        except Exception:
            traceback.print_exc()
