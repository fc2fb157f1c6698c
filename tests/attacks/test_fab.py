"""Is FAB good? Asked on planes whose distance is known. test_fab_parity.py asks the authors' package."""

from __future__ import annotations

import pytest
import torch
from peers import NORMS, fell, gradient_points, noise, smooth
from pydantic import ValidationError
from torch import Tensor, nn

from advbench.attacks.fab import FAB, _random_start
from advbench.passes import counting
from advbench.threat import Norm, Threat

THREATS = [Threat("Linf", 0.09), Threat("L2", 0.45), Threat("L1", 1.2)]
"""Radii at which some of the digits fall and some do not."""
SHAPE = (3, 4, 4)


class Linear(nn.Module):
    """Logits W (x - 1/2) of flattened examples, float64: every class is near the middle of the box."""

    def __init__(self, classes: int, size: int = 48) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(classes)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=source, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T


def uniform(n: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def distances(model: Linear, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
    """How far each example is from the plane to each class, (N, K), infinite to its own, where the box is far."""
    gap = model(x).gather(1, y[:, None]) - model(x)
    dual = torch.stack([Threat(norm, 1).dual_norm(model.weight[y] - w) for w in model.weight], dim=1)
    return (gap / dual).masked_fill(nn.functional.one_hot(y, gap.shape[1]).bool(), torch.inf).detach()


@pytest.mark.parametrize("targets", [0, 4, 9])
@pytest.mark.parametrize("norm", NORMS)
def test_fab_breaks_exactly_what_lies_within_reach_of_a_plane(norm, targets):
    model, x = Linear(5), uniform(200, 0.4, 0.6)
    y = model(x).argmax(1)
    nearest = distances(model, x, y, norm).amin(1)
    threat = Threat(norm, float(nearest.median()))

    x_adv = FAB(steps=20, targets=targets).run(model, x, y, threat, noise(200))

    broken = fell(model, x_adv, x, y, threat)
    assert torch.equal(broken[nearest < 0.995 * threat.eps], torch.ones_like(broken[nearest < 0.995 * threat.eps]))
    assert not broken[nearest > threat.eps].any()
    assert 60 < broken.sum() < 140
    # What does not fall comes back untouched, and what falls is allowed.
    assert torch.equal(x_adv[~broken], x[~broken])
    assert threat.contains(x_adv, x).all()


@pytest.mark.parametrize("norm", NORMS)
def test_one_step_overshoots_the_plane_by_a_twentieth(norm):
    model, x = Linear(2), uniform(30, 0.4, 0.6)
    y = model(x).argmax(1)
    distance = distances(model, x, y, norm).amin(1)

    x_adv = FAB(steps=1).run(model, x, y, Threat(norm, 100), noise(30))

    # Both projections of the first step are the same: the way is 1.05 of the distance, straight to the plane.
    torch.testing.assert_close(Threat(norm, 1).size(x_adv - x), 1.05 * distance, rtol=1e-9, atol=0)


@pytest.mark.parametrize("alpha_max", [0.1, 0.03])
@pytest.mark.parametrize("norm", NORMS)
def test_the_iterates_of_a_plane_are_as_algorithm_1_says(norm, alpha_max):
    """On the way to a plane at a distance of 1, eta, beta and alpha_max give the next place by hand."""
    model, x = Linear(2), uniform(10, 0.4, 0.6)
    y = model(x).argmax(1)
    distance, place, expected = distances(model, x, y, norm).amin(1), 0.0, []
    for _ in range(8):
        expected.append(place)
        own, home = abs(1 - place), 1.0
        alpha = min(own / (own + home), alpha_max)
        place = (place + 1.05 * (1 - place)) * (1 - alpha) + 1.05 * alpha
        place *= 0.9 if place > 1 else 1

    attack = FAB(steps=8, alpha_max=alpha_max)
    points = gradient_points(model, lambda: attack.run(model, x, y, Threat(norm, 1e-9), noise(10)))

    found = torch.stack([Threat(norm, 1).size(z - x) / distance for z in points])
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64)[:, None].expand(8, 10), rtol=1e-6, atol=1e-9
    )


def test_the_defaults_are_autoattacks():
    from pyautoattack import AutoAttack as Package

    theirs = Package(smooth(10), norm="Linf", eps=0.1, seed=0, device="cpu", version="standard").fab
    ours = FAB()
    assert (ours.steps, ours.targets, ours.starts) == (theirs.n_iter, theirs.n_target_classes, theirs.n_restarts)
    assert (ours.alpha_max, ours.eta, ours.beta) == (theirs.alpha_max, theirs.eta, theirs.beta)


def test_targets_come_in_the_order_of_the_clean_logits():
    logits = torch.tensor([[5.0, 1.0, 3.0, 2.0], [0.0, 4.0, 9.0, 4.5]])

    aims = FAB()._aims(logits, torch.tensor([0, 2]))
    assert aims[:, :, 0].T.tolist() == [[2, 3, 1], [3, 1, 0]]
    assert FAB(targets=2)._aims(logits, torch.tensor([0, 2]))[:, :, 0].T.tolist() == [[2, 3], [3, 1]]
    assert FAB(targets=0)._aims(logits, torch.tensor([0, 2])).tolist() == [[[2, 3, 1], [3, 1, 0]]]
    # A label that is not on top, by the rounding of a fast model, is still no target.
    assert FAB()._aims(logits, torch.tensor([2, 3]))[:, :, 0].T.tolist() == [[0, 3, 1], [2, 1, 0]]


@pytest.mark.parametrize("norm", NORMS)
def test_random_starts_lie_at_half_the_radius_in_any_direction(norm):
    x, threat = torch.full((2000, 1, 3, 3), 0.5, dtype=torch.float64), Threat(norm, 0.4)

    ways = _random_start(x, threat, noise(2000)) - x

    torch.testing.assert_close(threat.size(ways), torch.full((2000,), 0.2, dtype=torch.float64))
    # The mean of a pixel vanishes: its standard error is its spread over sqrt(2000).
    assert (ways.mean(0).abs() < 5 * ways.std(0) / 2000**0.5).all()
    assert len(ways.flatten(1).unique(dim=0)) == 2000


def test_examples_cost_nothing_once_they_are_fooled():
    model, x = Linear(2), uniform(40, 0.4, 0.6)
    y = model(x).argmax(1)
    y[:5] = 1 - y[:5]  # wrong without an attack
    distance = distances(model, x[5:], y[5:], "L2").amin(1)
    # One step goes 1.05 of the distance: those within reach of it are fooled there, the ten farthest never.
    order = distance.sort().values
    threat = Threat("L2", float(order[24] + order[25]) / 2)
    at_once = int((1.05 * distance <= threat.eps).sum())
    steps = 30
    with counting(model) as passes:
        x_adv = FAB(steps=steps).run(model, x, y, threat, noise(40))

    broken = fell(model, x_adv, x, y, threat)
    assert broken.sum() == 30
    late = 25 - at_once
    assert at_once > 10
    # Clean, and per iteration a gradient and a label: all 35 in the first, at least 2 iterations for the late ones.
    least, most = 35 + 10 * (steps - 1) + late, 35 + 10 * (steps - 1) + late * (steps - 1)
    assert least <= passes.backward <= most
    assert passes.forward == 40 + 2 * passes.backward
    everyone = torch.arange(40)[broken]
    with counting(model) as passes:
        FAB(steps=steps).run(model, x[:5], y[:5], threat, noise(40, rows=everyone[:5]))
    assert (passes.forward, passes.backward) == (5, 0)


class Rounded(nn.Module):
    """A linear model whose passes are off by a constant, and which knows an exact one."""

    def __init__(self, exact: nn.Module, shift: Tensor) -> None:
        super().__init__()
        self.exact, self.shift = exact, shift
        self.judge: nn.Module | None = exact

    def forward(self, x: Tensor) -> Tensor:
        return self.exact(x) + self.shift


def test_what_only_rounding_fooled_does_not_leave():
    exact, x = Linear(2), uniform(30, 0.4, 0.6)
    x = x[exact(x).argmax(1) == 0]
    y = torch.zeros(len(x), dtype=torch.int64)
    threat = Threat("L2", float(distances(exact, x, y, "L2").amin(1).median()))
    # Seen through the shift the plane is nearer by 0.0002; only a long first step overshoots the real one too.
    rounded = Rounded(exact, torch.tensor([0.0, 0.002], dtype=torch.float64))
    attack = FAB(steps=30)

    x_adv = attack.run(rounded, x, y, threat, noise(len(x)))

    left = (x_adv != x).flatten(1).any(1)
    assert torch.equal(left, fell(exact, x_adv, x, y, threat))
    rounded.judge = rounded
    trusting = attack.run(rounded, x, y, threat, noise(len(x)))
    assert 0 < left.sum() < (trusting != x).flatten(1).any(1).sum()


def test_logits_that_are_no_numbers_fool_nobody():
    class Hollow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.flatten(1).sum(1)
            return torch.stack([total, 0.6 * total.sqrt() / (total - total)], dim=1)

    x = uniform(4)

    assert torch.equal(FAB(steps=3).run(Hollow(), x, torch.zeros(4, dtype=torch.int64), THREATS[0], noise(4)), x)


def test_no_trace_is_left_on_model_input_or_global_streams(digits_cnn, digits_test):
    x, y = digits_test.pixels(slice(0, 8)), digits_test.labels[:8]
    before, state, model = x.clone(), torch.get_rng_state(), digits_cnn.eval()

    x_adv = FAB(steps=3, starts=2).run(model, x, y, THREATS[0], noise(8))

    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not x_adv.requires_grad
    assert not x_adv.is_inference()
    assert x_adv.shape == x.shape


@pytest.mark.parametrize("bad", [{"targets": -1}, {"steps": 0}, {"starts": 0}, {"restarts": 2}, {"eta": 0.9}])
def test_bad_hyper_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        FAB(**bad)


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_point_is_the_last_crossing_s_that_is_nearer_than_all_before(norm):
    """The recurrence above, on the way to a plane at a distance of 1: of the places beyond it, the nearest."""
    model, x = Linear(2), uniform(10, 0.45, 0.55)
    y = model(x).argmax(1)
    place, beyond = 0.0, []
    for _ in range(12):
        alpha = min(abs(1 - place) / (abs(1 - place) + 1), 0.1)
        place = (place + 1.05 * (1 - place)) * (1 - alpha) + 1.05 * alpha
        beyond += [place] * (place > 1)
        place *= 0.9 if place > 1 else 1

    found = FAB(steps=12, nearest=True).run(model, x, y, Threat(norm, 10.0), noise(10))

    assert min(beyond) < beyond[0]
    away = Threat(norm, 1).size(found - x) / distances(model, x, y, norm).amin(1)
    torch.testing.assert_close(away, torch.full_like(away, min(beyond)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_of_several_planes_is_found_to_the_end(norm):
    model, x = Linear(5), uniform(60, 0.45, 0.55)
    y = model(x).argmax(1)
    exact = distances(model, x, y, norm).amin(1)
    threat = Threat(norm, 10.0)

    found = FAB(nearest=True).run(model.eval().requires_grad_(False), x, y, threat, noise(60))

    away = threat.size(found - x)
    assert (model(found).argmax(1) != y).all()
    # It oversteps the plane by 5 %, then goes a tenth home and crosses it again, so it ends nearer than the overstep.
    assert (away >= exact * (1 - 1e-9)).all()
    assert (away <= exact * 1.05 * (1 + 1e-9)).all()
    first = FAB().run(model, x, y, threat, noise(60))
    assert (threat.size(first - x) >= away * (1 - 1e-9)).all()
