"""Batches, subsets and summaries that all collectors share."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor

from advbench.collectors.base import ranks, spearman, typical


def test_a_batch_that_does_not_fit_is_cut_and_said(scene):
    told: list[str] = []
    looked = scene(40, say=told.append)

    def work(rows: Tensor) -> dict[str, Tensor]:
        if len(rows) > 9:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"rows": rows}

    assert torch.equal(looked.map(work)["rows"], torch.arange(40))
    assert told


def test_summaries_withstand_an_overflow():
    found = typical("x", torch.tensor([1.0, 2.0, torch.inf]), "1", "it")

    assert found["x_median"].value == 2
    assert found["x_mean"].value is None
    assert typical("x", torch.full((3,), torch.nan), "1", "it")["x_median"].value is None


def test_rank_correlation_is_scipy_s():
    a = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])
    b = torch.tensor([2.0, 7, 1, 8, 2, 8, 1, 8])

    assert ranks(a).tolist() == rankdata(a.numpy()).tolist()
    assert spearman(a, b) == pytest.approx(spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-12)
    assert spearman(a, torch.ones(8)) != spearman(a, torch.ones(8))  # NaN: a constant has no ranks


def test_the_first_examples_meet_what_they_meet_among_all(scene):
    whole = scene(30)
    part = whole.only(10)

    assert len(part.x) == 10
    alone = part.adversarial
    assert "adversarial" not in vars(whole)
    assert torch.allclose(alone, whole.adversarial[:10], atol=1e-12)
    assert torch.equal(whole.only(10).adversarial, whole.adversarial[:10])
    assert whole.only(None) is whole
    assert whole.only(99) is whole


def test_adversarial_examples_are_made_once_lie_in_the_ball_and_do_not_depend_on_the_batch(scene):
    whole, small = scene(30), scene(30, batch=7)

    assert whole.adversarial is whole.adversarial
    assert whole.threat.contains(whole.adversarial, whole.x).all()
    assert (whole.adversarial - whole.x).abs().max() > 0.09
    assert torch.allclose(whole.adversarial, small.adversarial, atol=1e-12)
