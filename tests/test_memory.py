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
from advbench.memory import Size, fitting
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


@pytest.mark.parametrize(
    ("most", "tried"),
    [(100, [20, 20, 10]), (20, [20, 20, 10]), (7, [20, 10] + 10 * [5]), (3, [20, 10, 5] + 16 * [3] + [2])],
)
def test_a_batch_without_memory_is_cut_in_two(most: int, tried: list[int], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("of a device that is not in use"))
    met, told, rows = list[int](), list[str](), holding(most, [])
    size = Size(20, told.append)

    def work(batch: Tensor) -> None:
        met.append(len(batch))
        rows(batch)

    size.each(torch.arange(50), work)
    sizes = [n for n in (10, 5, 3) if n in tried and most < 20]
    assert told == [f"out of device memory: going on with {n} examples at a time" for n in sizes]
    assert size.batch == min([20, *sizes])
    assert _sizes(met) == _sizes(tried)
    met.clear()
    size.each(torch.arange(0), work)
    size.each(torch.arange(0), work, whole=True)
    assert met == []


def _sizes(batches: list[int]) -> tuple[list[int], int]:
    """The sizes in the order in which they came first, and how many rows were met in all."""
    return list(dict.fromkeys(batches)), sum(batches)


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


@pytest.mark.parametrize(("examples", "expected"), [(0.5, 1), (7.9, 7), (8, 8), (64, 50)])
def test_as_many_examples_fit_as_their_activations_leave_room_for(monkeypatch, examples: float, expected: int):
    """Each ReLU keeps its output, 4 bytes a pixel; weights are kept once, whatever the batch."""
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10)).requires_grad_(
        False
    )
    an_example = 2 * 48 * 4
    monkeypatch.setattr(memory, "free", lambda _: int(4 * examples * an_example))  # a quarter of what is free

    assert fitting(model, torch.rand(4, 3, 4, 4), 50) == expected
    assert fitting(model, torch.rand(2, 3, 4, 4), 50) == expected
    assert fitting(model, torch.rand(1, 3, 4, 4), 50) == 50, "one image tells nothing"


def test_what_keeps_nothing_is_bounded_by_what_is_asked_for(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda _: 2**30)
    assert fitting(nn.Flatten(), torch.rand(4, 3), 50) == 50


def test_where_nobody_tells_what_is_free_nothing_is_bounded(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda _: None)
    assert fitting(nn.Identity(), torch.rand(4, 3), 50) == 50


def test_free_memory_is_some_part_of_the_machine_s():
    known = memory.free(torch.device("cpu"))
    assert known is None or 2**20 < known < 2**50


def test_free_memory_is_what_the_system_says(monkeypatch: pytest.MonkeyPatch):
    said = "MemTotal:  100 kB\nMemAvailable:    7 kB\nMemFree: 5 kB\n"
    monkeypatch.setattr(Path, "read_text", lambda path, **_: said)
    assert memory.free(torch.device("cpu")) == 7 * 1024
    monkeypatch.setattr(Path, "read_text", lambda path, **_: said.splitlines()[0])
    assert memory.free(torch.device("cpu")) is None

    def absent(*_: Any, **__: Any) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert memory.free(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 9))
    assert memory.free(torch.device("cuda")) == 5
