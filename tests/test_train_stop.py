"""The optional stop: training ends at a collapse, and what it leaves is what it had before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advbench import find, train
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.train import Trained

HEALTHY, SINKING, FALLEN = (0.5, 0.45), (0.6, 0.3), (0.9, 0.02)
"""(FGSM, PGD) accuracies of an epoch."""


@pytest.fixture
def subsets(blobs: Callable[..., Examples]) -> Subsets:
    return Subsets(train=blobs(32), validation=blobs(12, seed=1), test=blobs(3, seed=2))


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, subsets: Subsets, make_job):
    """A function: the accuracies of each epoch -> what training leaves, and the weights after each epoch it did."""

    def run(curve: Sequence[tuple[float, float]], name: str = "pgd-at", file: str = "c", **training: Any):
        after: list[torch.Tensor] = []
        told: Iterator[tuple[float, float]] = iter(curve)

        def validate(model: nn.Module, *_: object) -> dict[str, float]:
            after.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
            fgsm, pgd = next(told)
            return {"clean": 0.9, "fgsm": fgsm, "pgd": pgd, "top_class": 0.4}

        monkeypatch.setattr(train, "validate", validate)
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        fields = {"epochs": 8, "batch": 16, "stop": "collapse", **training}
        defense = find.defense(find.shipped("baselines") / f"{name.replace('-', '_')}.py")()
        job = make_job(training=fields)
        return train.train(job, subsets, defense, model, tmp_path / f"{file}.pt", lambda *_: None), after

    return run


def weights(trained: Trained) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trained.last.values()])


def test_a_collapse_ends_training_and_the_weights_before_it_are_left(staged):
    trained, after = staged([HEALTHY, HEALTHY, SINKING, FALLEN, *[HEALTHY] * 4])

    assert len(after) == len(trained.history) == 4
    # The third epoch was on its way down already.
    assert torch.equal(weights(trained), after[1])
    assert not torch.equal(after[1], after[3])


def test_a_stopped_training_stays_stopped(staged):
    first, _ = staged([HEALTHY, FALLEN, *[HEALTHY] * 6])
    again, after = staged([HEALTHY] * 8)

    assert after == []
    assert again.history == first.history
    assert torch.equal(weights(again), weights(first))


@pytest.mark.parametrize(
    ("name", "training"), [("pgd-at", {"stop": None}), ("standard", {})], ids=["not asked for", "meets no attack"]
)
def test_nobody_else_stops(staged, name: str, training: dict[str, Any]):
    trained, after = staged([HEALTHY, HEALTHY, *[FALLEN] * 6], name, **training)

    assert len(after) == 8
    assert torch.equal(weights(trained), after[-1])


def test_without_a_collapse_the_field_changes_nothing(staged):
    with_it, _ = staged([HEALTHY] * 8)
    without, _ = staged([HEALTHY] * 8, file="d", stop=None)

    assert torch.equal(weights(with_it), weights(without))
    assert [e.loss for e in with_it.history] == [e.loss for e in without.history]
