"""Sums over an epoch: what each step adds, where a killed epoch goes on, and what several processes make of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advbench.checkpoint import Progress
from advbench.parallel import ALONE, Group
from advbench.passes import Passes
from advbench.totals import Totals


def begun() -> Progress:
    """An epoch of which four examples are done."""
    return Progress(loss_sum=1.5, reports={"a": (2.0, 4)}, forward=10, backward=20, seconds=3)


class Two(Group):
    """The first of two processes; the other one has as much, and so much of a report of its own."""

    def told(self, value: Any) -> Any:
        return sorted({*value, "z"})

    def total(self, values: Any) -> list[float]:
        return [2 * value for value in values]


def test_a_step_counts_by_its_examples_and_goes_on_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 102.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    at, passes = begun(), Passes(5, 7)
    totals = Totals(at, ALONE)
    report: dict[str, Any] = {"a": torch.tensor(0.5, requires_grad=True), "b": 3.0}

    totals.add(torch.tensor(2.0), 8, report)

    assert report == {}
    assert isinstance(totals.loss, torch.Tensor)
    assert totals.loss.dtype == torch.float32
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for value, _ in totals.reports.values())
    totals.into(at, passes)
    assert (at.loss_sum, at.reports) == (1.5 + 2 * 8, {"a": (2 + 0.5 * 8, 12), "b": (24, 8)})
    assert (at.forward, at.backward, at.seconds) == (15, 27, 5)
    assert (passes.forward, passes.backward) == (0, 0)
    assert {type(at.forward), type(at.backward), *(type(count) for _, count in at.reports.values())} == {int}


def test_two_processes_have_the_sum_of_both_and_begin_once() -> None:
    at = begun()
    totals, other = Totals(at, Two(0, 2)), Totals(at, Two(1, 2))
    assert (other.loss, other.reports) == (0, {})

    totals.add(torch.tensor(2.0), 8, {})

    assert isinstance(totals.loss, torch.Tensor)
    assert totals.loss.dtype == torch.float64
    totals.into(at, Passes(5, 7))
    assert (at.loss_sum, at.forward, at.backward) == (2 * 17.5, 10 + 2 * 5, 20 + 2 * 7)
    assert at.reports == {"a": (4, 8), "z": (0, 0)}
