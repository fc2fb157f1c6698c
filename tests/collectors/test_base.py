"""Batches, subsets and summaries that all collectors share."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import rankdata, spearmanr
from torch import Tensor, nn

from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector, Measures, NotApplicable, Scene, ranks, spearman, typical
from advbench.threat import Threat


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
    low = typical("x", torch.tensor([-torch.inf, 1.0, 2.0]), "1", "it")
    assert (low["x_median"].value, low["x_mean"].value) == (2, None)
    assert [measure.value for measure in typical("x", torch.zeros(0), "1", "it").values()] == [None, None]


def test_rank_correlation_is_scipy_s():
    a = torch.tensor([3.0, 1, 4, 1, 5, 9, 2, 6])
    b = torch.tensor([2.0, 7, 1, 8, 2, 8, 1, 8])

    assert ranks(a).tolist() == rankdata(a.numpy()).tolist()
    assert spearman(a, b) == pytest.approx(spearmanr(a.numpy(), b.numpy()).statistic, abs=1e-12)
    assert spearman(torch.tensor([1.0, 2]), torch.tensor([5.0, 7])) == pytest.approx(1)
    for over in (torch.inf, torch.nan):
        assert spearman(torch.tensor([3.0, 1, over, 2]), torch.tensor([3.0, 1, 4, 2])) == pytest.approx(1)
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
    assert whole.only(30) is whole
    assert part.whole is whole
    assert torch.equal(part.y, whole.y[:10])
    # What was found of all examples is not what would be found of some.
    whole.known["asked"] = 1
    assert whole.only(10).known == {}


def test_adversarial_examples_are_made_once_lie_in_the_ball_and_do_not_depend_on_the_batch(scene):
    whole, small = scene(30), scene(30, batch=7)

    assert whole.adversarial is whole.adversarial
    assert whole.threat.contains(whole.adversarial, whole.x).all()
    assert (whole.adversarial - whole.x).abs().max() > 0.09
    assert torch.allclose(whole.adversarial, small.adversarial, atol=1e-12)


def test_a_batch_shrinks_by_what_an_example_costs_but_not_to_nothing(scene):
    for cost, sizes in ((1, [10, 10, 10, 10]), (4, [2] * 20), (3, [3] * 13 + [1]), (99, [1] * 40)):
        seen: list[int] = []
        scene(40, batch=10).map(lambda rows, seen=seen: seen.append(len(rows)) or {"rows": rows}, cost)
        assert seen == sizes


def bare(model: nn.Module) -> Scene:
    return Scene(model, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), Threat("Linf", 0.1), 2)


class Detached(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1)


def test_without_a_gradient_there_are_no_adversarial_examples():
    line = "the model has no input gradient (element 0 of tensors does not require grad and does not have a grad_fn)"
    with pytest.raises(NotApplicable) as caught:
        _ = bare(Detached()).adversarial
    assert str(caught.value) == line


def test_an_error_that_is_about_something_else_stays_what_it_is():
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("the cable is loose")

    with pytest.raises(RuntimeError, match="the cable is loose"):
        bare(Broken()).needs_gradient()


def test_weights_are_the_floating_ones_and_a_model_has_some():
    class Counts(nn.Module):
        def __init__(self, *, real: bool) -> None:
            super().__init__()
            self.count = nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)
            if real:
                self.weight = nn.Parameter(torch.ones(4, 2))

    found = bare(Counts(real=True)).parameters()
    assert [*found] == ["weight"]
    assert found["weight"].requires_grad
    assert found["weight"].is_leaf
    with pytest.raises(NotApplicable, match="the model has no weights"):
        bare(Counts(real=False)).parameters()


def test_what_a_scene_and_its_measures_are_unless_said():
    scene = bare(Detached())

    assert (scene.seed, scene.batch, scene.attack, scene.whole, scene.known) == (0, 256, PGD(), None, {})
    assert Measures({}) == Measures({}, {}, ())


class Looks(Collector):
    name = "looks"
    about = "nothing"
    paper = "none"


def test_an_interval_that_is_not_asked_for_is_not_spoken_of():
    assert Looks().plain() == {"examples": None}
    assert Looks(every=3, examples=7).plain() == {"examples": 7, "every": 3}
    assert Looks().passes(10) == 4
    assert math.isnan(spearman(torch.ones(3), torch.ones(3)))
