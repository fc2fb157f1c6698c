"""Who helps with an evaluation."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from advbench.assess import Where, _hands
from advbench.data.base import Examples


@pytest.mark.parametrize(
    ("device", "jobs", "blocks", "helpers"),
    [
        ("cpu", None, 20, 3),  # of 8 cores each process takes 2
        ("cpu", 8, 20, 7),  # as many as were asked for
        ("cuda:0", None, 20, 7),
        ("cuda:0", None, 3, 2),  # a block each, and one for the first
    ],
)
def test_helpers_take_what_the_machine_has_and_a_block_each(
    monkeypatch: pytest.MonkeyPatch, make_job: Any, device: str, jobs: int | None, blocks: int, helpers: int
) -> None:
    monkeypatch.setattr("advbench.agenda.devices", lambda *_: [device] * 8)
    job = make_job(threads=2, evaluation={"block": 10})
    test = Examples(torch.zeros(10 * blocks, 1, 1, 1), torch.zeros(10 * blocks), torch.arange(10 * blocks), 1)
    monkeypatch.setattr(Examples, "device", torch.device(device))
    ready = SimpleNamespace(job=job, test=test, base=Path(), rule=None)
    where = Where(Path("results"), Path("data"), device)

    assert _hands(ready, where, jobs) == [device] * helpers  # type: ignore[arg-type]
    ready.rule = "decided"  # where it would end depends on what is found on the way
    assert _hands(ready, where, jobs) == []  # type: ignore[arg-type]
