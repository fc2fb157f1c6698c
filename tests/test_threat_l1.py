"""The L1 ball's own verbs against linear and quadratic programs, bisection and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from scipy.stats import kstest
from torch import Tensor

from advbench.seeds import Stream
from advbench.threat import Norm, Threat

SHAPES = [(64, 1), (32, 7), (16, 3, 5, 4), (4, 3, 32, 32)]
EPS = [0.05, 0.7, 6.0, 5000.0]


def draw(shape: tuple[int, ...], far: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Examples in the box, a third of their pixels on its faces, and candidates up to some `far` away."""
    source = torch.Generator().manual_seed(0)
    x = (torch.rand(shape, generator=source, dtype=torch.float64) * 1.5 - 0.25).clamp(0, 1).to(dtype)
    return x, x + far * torch.randn(shape, generator=source, dtype=torch.float64).to(dtype)


def bisected(wild: Tensor, x: Tensor, eps: float) -> Tensor:
    """The projection by 100 halvings of the one number that Croce and Hein's KKT conditions leave open."""
    delta, x = (wild.double() - x.double()).flatten(1), x.double().flatten(1)

    def moved(shrink: Tensor) -> Tensor:
        soft = delta.sign() * (delta.abs() - shrink).clamp_min(0)
        return torch.minimum(torch.maximum(soft, -x), 1 - x)

    low, high = torch.zeros(len(x), 1, dtype=torch.float64), delta.abs().amax(1, keepdim=True)
    for _ in range(100):
        middle = (low + high) / 2
        outside = moved(middle).abs().sum(1, keepdim=True) > eps
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    inside = moved(torch.zeros_like(low)).abs().sum(1, keepdim=True) <= eps
    return (x + moved(torch.where(inside, 0, high))).view_as(wild)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_projection_is_that_of_the_kkt_conditions(shape, eps, far, dtype):
    x, wild = draw(shape, far, dtype)

    projected = Threat("L1", eps).project(wild, x)

    # A float64 result a thousand away from its candidate keeps 1e-13 of it.
    atol = 2**-25 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(projected.double(), bisected(wild, x, eps), rtol=0, atol=atol)
    assert projected.dtype == dtype
    assert projected.shape == x.shape
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert Threat("L1", eps).contains(projected, x).all()


@pytest.mark.parametrize("eps", [0.1, 0.6, 1.5])
def test_the_projection_is_the_quadratic_program_s_optimum(eps):
    x, wild = draw((12, 4))

    projected = Threat("L1", eps).project(wild, x)

    for start, goal, found in zip(x.numpy(), wild.numpy(), projected.numpy(), strict=True):
        # d = up - down with both at least 0 makes the L1 norm linear.
        best = minimize(
            lambda d, w=goal - start: ((d[:4] - d[4:] - w) ** 2).sum(),
            np.full(8, 0.01),
            bounds=[*((0, 1 - value) for value in start), *((0, value) for value in start)],
            constraints={"type": "ineq", "fun": lambda d: eps - d.sum()},
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        ).x
        np.testing.assert_allclose(found, start + best[:4] - best[4:], atol=2e-5)


def test_corners_ties_and_a_radius_of_nothing_are_exact():
    third = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.5, 0.5]], dtype=torch.float64)
    wild = torch.tensor([[2.0, 2.0, 2.0], [-5.0, -5.0, 2.0], [0.9, 0.1, 0.5]], dtype=torch.float64)

    found = Threat("L1", 0.6).project(wild, third)

    expected = [[0.2, 0.2, 0.2], [0.7, 0.7, 1.0], [0.8, 0.2, 0.5]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(Threat("L1", 0.6).scaled(0).project(wild, third), third)
    assert Threat("L1", 0.6).project(torch.full((1, 3), torch.nan), torch.zeros(1, 3)).isnan().any()


@pytest.mark.parametrize("far", [0.01, 1.0, 1000.0])
@pytest.mark.parametrize("eps", EPS)
def test_the_projection_is_idempotent_and_brings_no_two_points_further_apart(eps, far):
    x, wild = draw((64, 3, 4, 4), far)
    other = wild.roll(1, dims=1) * 0.7
    threat = Threat("L1", eps)

    one, two = threat.project(wild, x), threat.project(other, x)

    torch.testing.assert_close(threat.project(one, x), one, rtol=0, atol=1e-12)
    distance = Threat("L2", eps).size
    assert (distance(one - two) <= distance(wild - other) * (1 + 1e-12)).all()


def test_a_projected_example_does_not_depend_on_its_batch():
    x, wild = draw((16, 3, 4, 4), dtype=torch.float32)
    threat = Threat("L1", 1.3)

    assert torch.equal(threat.project(wild, x)[5:6], threat.project(wild[5:6], x[5:6]))


@pytest.mark.parametrize("size", [0.05, 0.8, 2.5, 50.0])
def test_the_step_is_the_linear_program_s_optimum(size):
    x, _ = draw((12, 6))
    grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    grad[:, 2] = 0  # a pixel that changes nothing
    grad[:, 4] = grad[:, 3]  # a tie

    step = Threat("L1", 1.0).step(x, grad, size) - x

    assert (step[:, 2] == 0).all()
    assert (step.abs().sum(1) <= size + 1e-12).all()
    for start, slope, found in zip(x.numpy(), grad.numpy(), step.numpy(), strict=True):
        best = linprog(
            np.concatenate([-slope, slope]),
            A_ub=np.ones((1, 12)),
            b_ub=[size],
            bounds=[*((0, 1 - value) for value in start), *((0, value) for value in start)],
        )
        assert slope @ found == pytest.approx(-best.fun, abs=1e-9)


def test_the_step_is_along_the_steepest_direction_where_the_box_is_far():
    x, grad = torch.full((8, 3, 2, 2), 0.5), draw((8, 3, 2, 2), dtype=torch.float32)[1]
    threat = Threat("L1", 1.0)

    torch.testing.assert_close(threat.step(x, grad, 0.3), x + 0.3 * threat.steepest_ascent(grad))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_in_the_other_norms_the_step_is_the_steepest_direction_bit_for_bit(norm: Norm):
    x, grad = draw((8, 3, 2, 2), dtype=torch.float32)
    threat = Threat(norm, 1.0)

    assert torch.equal(threat.step(x, grad, 0.3), x + 0.3 * threat.steepest_ascent(grad))


def test_a_pixel_outside_the_box_is_pushed_no_further_out():
    x = torch.tensor([[-0.2, 1.3, 0.5]])

    stepped = Threat("L1", 1.0).step(x, torch.tensor([[-3.0, 2.0, 1.0]]), 0.4)

    torch.testing.assert_close(stepped, torch.tensor([[-0.2, 1.3, 0.9]]))


@pytest.mark.parametrize("dimension", [1, 2, 12, 200])
def test_the_random_start_fills_the_volume_of_the_ball_evenly(dimension):
    x = torch.full((4000, dimension), 0.5, dtype=torch.float64)
    threat = Threat("L1", 0.3)

    delta = threat.random_start(x, Stream(torch.Generator().manual_seed(6)), box=False) - x

    size = threat.size(delta)
    assert size.max() <= 0.3
    # A ball of radius r holds (r / eps)^d of the volume, so that share is uniform on [0, 1], and E r = eps d / (d + 1).
    assert kstest(((size / 0.3) ** dimension).numpy(), "uniform").pvalue > 1e-3
    assert size.mean().item() == pytest.approx(0.3 * dimension / (dimension + 1), rel=0.02)
    # The share of one pixel in the sum is Beta(1, d - 1), and either sign comes as often.
    if dimension > 1:
        assert kstest((delta[:, 0].abs() / size).numpy(), "beta", args=(1, dimension - 1)).pvalue > 1e-3
    assert abs((delta[:, 0] > 0).double().mean().item() - 0.5) < 4 * 0.5 / 4000**0.5


class Still:
    """Noise that is always zero, whose logarithm is infinite."""

    def uniform(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    normal = uniform


def test_a_random_number_of_zero_makes_no_start_that_is_not_finite():
    x = torch.full((2, 3), 0.5)

    assert torch.equal(Threat("L1", 1.0).random_start(x, Still()), x)


def test_contains_allows_the_roundings_of_all_moved_pixels_and_no_more():
    x = torch.full((2, 3, 64, 64), 0.7)
    threat = Threat("L1", 1.0)
    # In [0.5, 1) float32 numbers lie 2^-24 apart, so each of the many pixels may be off by half of that.
    share = torch.full_like(x, 1.0 / x[0].numel())
    moved = x.double() + share
    off = moved + 2.0**-25

    assert threat.contains(off, x).all()
    assert not threat.contains(moved + 2 * 2.0**-25, x).any()
    # A sparse perturbation has few roundings, and no more is forgiven.
    sparse = x.double()
    sparse[:, 0, 0, 0] = 0.9
    sparse[:, 0, 0, 1:5] = 0.9 + 2.5e-5
    assert not threat.contains(sparse, x).any()
