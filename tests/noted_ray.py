"""A Ray that only takes notes, for tests of its driver."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from advbench.execute.local import Event
from advbench.plan import Item


class RayError(Exception):
    pass


class Remote:
    """What Ray makes of a class or a function: notes how it is wanted."""

    def __init__(self, what: Any) -> None:
        self.what, self.how = what, dict[str, Any]()

    def options(self, **how: Any) -> Remote:
        self.how = how
        return self

    def remote(self, *told: Any) -> Any:
        self.told = told
        return self

    @property
    def wait(self) -> Remote:
        return Remote("wait")


def job(label: str = "d", processes: int = 1, **fields: Any) -> Item:
    return Item(task="t", label=label, seed=0, base=Path(), processes=processes, **fields)


def told_of(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    return [(e.item.label, e.stage, e.done, e.total, e.words, e.seconds) for e in events]
