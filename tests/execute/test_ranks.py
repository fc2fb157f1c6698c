"""One process of a job that is shared over nodes: what it leaves to its node."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

import pytest

from advbench.execute import ranks, torchrun
from advbench.execute.torchrun import Place
from advbench.execute.wire import Meet
from advbench.plan import Item


def test_the_node_alone_holds_it_to_its_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    done: list[Item] = []

    @contextmanager
    def lead(*_: Any) -> Generator[Callable[..., None]]:
        yield lambda items, *_: done.extend(items)

    monkeypatch.setattr(torchrun, "lead", lead)
    monkeypatch.setattr(ranks, "attend", lambda: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "_exit", lambda code: code)
    home, there = Pipe()
    item = Item(task="t", label="d", seed=0, base=Path(), processes=2, minutes=1, memory_gib=2)
    home.send((item, False, ["cpu"]))

    ranks.serve(Place(0, 2, 0), Meet("127.0.0.1", 1), there, tmp_path, tmp_path, "cpu")

    assert done == [item.model_copy(update={"minutes": None, "memory_gib": None})]
