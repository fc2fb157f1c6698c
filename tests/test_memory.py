"""Work that the device's memory cannot hold is cut into smaller pieces, none lost and none done twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import memory
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.memory import SHARE, Size, fitting
from advbench.threat import Threat


def holding(most: int, done: list[int]) -> Callable[[Tensor], None]:
    def work(rows: Tensor) -> None:
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(rows.tolist())

    return work


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_every_row_is_done_once_and_in_order(most):
    done: list[int] = []
    told: list[str] = []
    size = Size(20, told.append)

    size.each(torch.arange(50), holding(most, done))
    halvings = len(told)
    size.each(torch.arange(50, 90), holding(most, done))

    assert done == list(range(90))
    assert len(told) == halvings  # what did not fit once is not tried again
    assert size.batch <= max(most, 1) or not told


def test_nothing_to_cut_is_an_error():
    with pytest.raises(torch.OutOfMemoryError):
        Size(4, lambda _: None).each(torch.arange(3), holding(0, []))
    with pytest.raises(torch.OutOfMemoryError, match=r"on 3 examples.*lower evaluation\.block"):
        Size(4, lambda _: None).each(torch.arange(3), holding(2, []), whole=True)
    Size(4, lambda _: None).each(torch.arange(0), holding(0, []), whole=True)


def test_verdicts_do_not_depend_on_the_memory(tmp_path: Path, judged, digits_cnn: nn.Module, digits_test: Examples):
    class Small(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 60:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return digits_cnn(x)

    told: list[Any] = []
    attacks, threat = [PGD(steps=5)], Threat("Linf", 0.1)
    whole = judged(digits_cnn, digits_test, attacks, threat)
    pieces = judged(Small(), digits_test, attacks, threat, tell=lambda *news: told.append(news[3]))

    assert whole.broken_by == pieces.broken_by
    assert whole.scores == pieces.scores
    assert [words for words in told if "memory" in words] == [
        f"out of device memory: going on with {n} examples at a time" for n in (100, 50)
    ]


@pytest.mark.parametrize(("examples", "expected"), [(0.5, 1), (7.9, 7), (64, 50)])
def test_as_many_examples_fit_as_their_activations_leave_room_for(monkeypatch, examples: float, expected: int):
    """Each ReLU keeps its output, 4 bytes a pixel; weights are kept once, whatever the batch."""
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)).requires_grad_(
        False
    )
    an_example = 2 * 48 * 4
    monkeypatch.setattr(memory, "free", lambda _: int(examples * an_example / SHARE))

    assert fitting(model, torch.rand(4, 3, 4, 4), 50) == expected


def test_where_nobody_tells_what_is_free_nothing_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda _: None)
    assert fitting(nn.Identity(), torch.rand(4, 3), 50) == 50


def test_free_memory_is_some_part_of_the_machine_s():
    known = memory.free(torch.device("cpu"))
    assert known is None or 2**20 < known < 2**50
