"""A worker without a process, for tests of the driver."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from advbench.plan import Item


def job(label: str = "d", seconds: float = 10, processes: int = 1, **fields: Any) -> Item:
    return Item(task="t", label=label, seed=0, base=Path(), seconds=seconds, processes=processes, **fields)


class Scripted:
    """A worker that says what a test gives it to say, and notes what is done with it."""

    def __init__(self, *place: Any, device: str = "cpu") -> None:
        """As a driver makes one: context, results, root, device."""
        if place:
            device = place[-1]
        self.device = device
        self.process = self.connection = self
        self.item: Item | None = None
        self.helps = self.lent = self.spoilt = False
        self.ready = self.alive = True
        self.others: list[Scripted] = []
        self.why, self.until, self.pid, self.exitcode = "", float("inf"), 5, -9
        self.started, self.busy_until = 0.0, 0.0
        self.began: float | None = None
        self.attacking: float | None = None
        self.words: list[tuple[Any, ...]] = []
        self.done: list[Any] = []

    @property
    def idle(self) -> bool:
        return self.item is None and not self.lent

    def take(self, item: Item, others: list[Scripted], *, helps: bool = False) -> None:
        self.item, self.others, self.helps, self.started = item, others, helps, time.monotonic()
        self.done.append(("take", item.label, helps))

    def end(self) -> None:
        self.item = None
        self.done.append("end")

    def is_alive(self) -> bool:
        return self.alive

    def poll(self) -> bool:
        return bool(self.words)

    def recv(self) -> tuple[Any, ...]:
        if not self.words:
            raise EOFError
        return self.words.pop(0)

    def join(self, timeout: float | None = None) -> None:
        self.done.append(("join", timeout))

    def ask(self, why: str, seconds: float) -> None:
        self.why = why
        self.done.append(("ask", why, seconds))

    def __getattr__(self, name: str) -> Any:
        if name in ("warn", "stop", "kill"):
            return lambda: self.done.append(name)
        raise AttributeError(name)


def busy(item: Item | None, **fields: Any) -> Scripted:
    """One that works on it."""
    found = Scripted()
    found.item = item
    vars(found).update(fields)
    return found
