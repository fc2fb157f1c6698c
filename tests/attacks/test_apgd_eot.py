"""APGD on models that answer at random: gradients and losses are means over passes, and luck decides nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.apgd import APGD
from advbench.passes import counting
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
RADII = {"Linf": 0.1, "L2": 0.2, "L1": 0.8}
LABELS = torch.zeros(8, dtype=torch.int64)


def noise(n: int = 8) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), 0, n, torch.arange(n))


def middle() -> Tensor:
    source = torch.Generator().manual_seed(9)
    return 0.4 + 0.2 * torch.rand(8, 12, generator=source, dtype=torch.float64)


class Turns(nn.Module):
    """Takes the next of several planes at every pass, and is so wrong that cross-entropy is linear in x."""

    def __init__(self, planes: Tensor) -> None:
        super().__init__()
        self.planes, self.calls = planes, 0

    def forward(self, x: Tensor) -> Tensor:
        height = 100 + x @ self.planes[self.calls % len(self.planes)]
        self.calls += 1
        return torch.stack([torch.zeros_like(height), height], dim=1)


def turns(count: int) -> Turns:
    """Planes that mostly contradict each other; what they have in common is small beside it."""
    source = torch.Generator().manual_seed(2)
    common, own = (torch.randn(n, 12, generator=source, dtype=torch.float64) for n in (1, count))
    return Turns(common + 5 * (own - own.mean(0)))


@pytest.mark.parametrize(("norm", "share"), [("Linf", 1 - 1e-9), ("L2", 1 - 1e-3), ("L1", 0.9)])
@pytest.mark.parametrize("eot", [2, 5])
def test_it_finds_the_best_point_of_the_mean_of_many_planes(norm, share, eot):
    x, threat = middle(), Threat(norm, RADII[norm])
    mean = turns(eot).planes.mean(0)
    best = (threat.farthest(x, mean.expand(8, -1)) - x) @ mean

    found = (APGD(eot=eot, runs=1).run(turns(eot), x, LABELS, threat, noise()) - x) @ mean
    single = (APGD(eot=1, runs=1).run(turns(eot), x, LABELS, threat, noise()) - x) @ mean

    assert (found <= best + 1e-9).all()
    assert (found >= share * best).all()
    # One pass at a time, the highest loss is that of whichever plane happened to be asked.
    assert single.mean() < 0.9 * found.mean()


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_model_that_always_says_the_same_is_attacked_as_ever(norm, loss):
    source = torch.Generator().manual_seed(1)
    weight = torch.randn(12, 4, generator=source, dtype=torch.float64)
    # Label 0 leads by so much that nothing is fooled, where both would part.
    model = nn.Linear(12, 4).double().requires_grad_(False)
    model.weight.copy_(weight.T)
    model.bias.copy_(torch.tensor([30.0, 0, 1, 2]))
    x, threat = middle(), Threat(norm, RADII[norm])

    plain, averaged = (APGD(loss=loss, steps=30, eot=eot).run(model, x, LABELS, threat, noise()) for eot in (None, 2))

    assert torch.equal(plain, averaged)
    assert not torch.equal(plain, x)


class Flips(nn.Module):
    """Right by far, and wrong by far in one of three answers, wherever it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(12, dtype=torch.float64))
        self.draws = torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        sign = 1 - 2 * (torch.rand(len(x), generator=self.draws) < 1 / 3).double()
        height = 10 * sign + 0.01 * x @ self.slope
        return torch.stack([height, -height, torch.zeros_like(height)], dim=1)


@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize(("eot", "runs"), [(1, 1), (4, 1), (3, 2)])
def test_nobody_leaves_for_one_lucky_answer_and_every_pass_is_counted(loss, eot, runs):
    with counting(model := Flips()) as passes:
        APGD(loss=loss, steps=10, runs=runs, eot=eot).run(model, middle(), LABELS, Threat("Linf", 0.1), noise())

    # The clean pass; in each run the start and ten steps, of which the last needs no gradient.
    assert (passes.forward, passes.backward) == (8 * (1 + runs * eot * 11), 8 * runs * eot * 10)
    with counting(model := Flips()) as passes:
        APGD(loss=loss, steps=10, runs=1).run(model, middle(), LABELS, Threat("Linf", 0.1), noise())
    assert passes.forward < 8 * 11 / 2


def test_the_mean_gradient_has_a_variance_that_falls_with_the_passes():
    """One step on a plane behind additive noise of the gradient: how often the sign of a weak pixel is right."""

    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.draws = torch.Generator().manual_seed(3)

        def forward(self, x: Tensor) -> Tensor:
            w = 1 + 2 * torch.randn(x.shape, generator=self.draws, dtype=x.dtype)
            height = 100 + (x * w).sum(1)
            return torch.stack([torch.zeros_like(height), height], dim=1)

    x = torch.full((300, 12), 0.5, dtype=torch.float64)
    labels, threat = torch.zeros(300, dtype=torch.int64), Threat("Linf", 0.1)

    def wrong(eot: int) -> float:
        # A first step is two radii long, so its end is the corner that the mean gradient at the start points to. The
        # start is on the surface and may have the higher loss by luck, so it is left out by its looks.
        found = APGD(steps=1, runs=1, eot=eot).run(Noisy(), x, labels, threat, noise(300)) - x
        corners = found[(found.abs() > 0.1 - 1e-9).all(1)]
        assert len(corners) > 100
        return float((corners < 0).double().mean())

    # P(mean of n draws of N(1, 2) < 0) = Phi(-sqrt(n) / 2); 1,200 pixels and more, three standard errors and the luck
    # of those that were kept for a high loss, which favours the right signs.
    for eot in (1, 4, 16):
        expected = float(torch.special.ndtr(torch.tensor(-(eot**0.5) / 2)))
        assert 0.6 * expected - 0.01 < wrong(eot) < expected + 3 * (expected / 1200) ** 0.5
