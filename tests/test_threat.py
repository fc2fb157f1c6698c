"""The verbs of a norm ball against brute force, closed forms and known distributions."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from advbench.seeds import Stream
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
SHAPES = [(64, 1), (32, 7), (16, 3, 5, 4)]
DTYPES = [torch.float32, torch.float64]


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Examples in the box, a good many on its faces, and wild candidates around them."""
    source = torch.Generator().manual_seed(seed)
    x = (torch.rand(shape, generator=source, dtype=dtype) * 1.5 - 0.25).clamp(0, 1)
    return x, x + torch.randn(shape, generator=source, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [0.03, 0.5])
def test_linf_projection_is_the_nearest_point_found_by_brute_force(shape, eps):
    x, wild = draw(shape)

    projected = Threat("Linf", eps).project(wild, x)

    # Both sets are boxes, so the nearest point is sought pixel by pixel on a fine grid of each pixel's interval.
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    grid = low + (high - low) * torch.linspace(0, 1, 1001, dtype=x.dtype).view(-1, *[1] * x.dim())
    nearest = grid.gather(0, (grid - wild).abs().argmin(0, keepdim=True)).squeeze(0)
    torch.testing.assert_close(projected, nearest, rtol=0, atol=2 * eps / 1000)
    assert ((projected - wild).abs() <= (nearest - wild).abs() + 1e-12).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_l2_projection_is_the_nearest_point_of_the_ball_where_the_box_does_not_bind(shape):
    _, direction = draw(shape)
    x = torch.full(shape, 0.5, dtype=torch.float64)
    threat = Threat("L2", 0.2)
    wild = x + 0.3 * direction

    projected = threat.project(wild, x)

    # p is the nearest point of a convex set to w exactly when <w - p, q - p> <= 0 for every q of the set.
    source = Stream(torch.Generator().manual_seed(1))
    for _ in range(200):
        q = threat.random_start(x, source, box=False)
        assert (((wild - projected) * (q - projected)).flatten(1).sum(1) <= 1e-12).all()
    outside = threat.size(wild - x) > threat.eps
    assert outside.any()
    torch.testing.assert_close(threat.size(projected - x)[outside], torch.full((int(outside.sum()),), 0.2).double())


@pytest.mark.parametrize("norm", NORMS)
def test_projection_leaves_points_of_the_ball_and_box_alone(norm):
    x, _ = draw((32, 3, 4, 4))
    threat = Threat(norm, 0.4)
    inside = threat.random_start(x, Stream(torch.Generator().manual_seed(2)))

    torch.testing.assert_close(threat.project(inside, x), inside, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_projection_lands_in_ball_and_box_and_is_idempotent(shape, norm, dtype):
    x, wild = draw(shape, dtype)
    threat = Threat(norm, 0.3)

    once = threat.project(wild, x)

    # An L1 norm sums the rounding of every coordinate.
    rounding = 4 * torch.finfo(dtype).eps * (x[0].numel() if norm == "L1" else 1)
    assert once.dtype == dtype
    assert once.min() >= 0
    assert once.max() <= 1
    assert (threat.size(once - x) <= threat.eps + rounding).all()
    assert threat.contains(once, x).all()
    torch.testing.assert_close(threat.project(once, x), once, rtol=0, atol=rounding)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_steepest_ascent_attains_the_dual_norm(shape, norm):
    _, grad = draw(shape)
    threat = Threat(norm, 1.0)

    best = threat.steepest_ascent(grad)

    torch.testing.assert_close(threat.size(best), torch.ones(shape[0], dtype=grad.dtype))
    torch.testing.assert_close((grad * best).flatten(1).sum(1), threat.dual_norm(grad))


@pytest.mark.parametrize("norm", NORMS)
def test_no_unit_direction_beats_the_dual_norm(norm):
    _, grad = draw((8, 3, 2, 2))
    threat = Threat(norm, 1.0)
    source = torch.Generator().manual_seed(3)

    for _ in range(500):
        d = torch.randn(grad.shape, generator=source, dtype=grad.dtype)
        d = d / threat.size(d).view(-1, 1, 1, 1)
        assert ((grad * d).flatten(1).sum(1) <= threat.dual_norm(grad) + 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e25])
def test_steepest_ascent_is_of_unit_size_for_gradients_whose_squares_leave_float32(norm, scale):
    threat = Threat(norm, 1.0)
    grad = torch.linspace(-1, 1, 12).view(1, 3, 2, 2) * scale

    torch.testing.assert_close(threat.size(threat.steepest_ascent(grad)), torch.ones(1))


@pytest.mark.parametrize("norm", NORMS)
def test_steepest_ascent_of_a_zero_gradient_is_zero_and_not_nan(norm):
    assert (Threat(norm, 1.0).steepest_ascent(torch.zeros(2, 3)) == 0).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_random_start_is_allowed(shape, norm):
    x, _ = draw(shape, torch.float32)
    threat = Threat(norm, 0.3)

    start = threat.random_start(x, Stream(torch.Generator().manual_seed(4)))

    assert threat.contains(start, x).all()
    # Half of the draws on a face of the box are clipped back onto it; the rest have moved.
    assert (start != x).double().mean() > 0.7


def test_linf_random_start_is_uniform_in_every_pixel():
    x = torch.full((4000, 3), 0.5, dtype=torch.float64)

    delta = Threat("Linf", 0.2).random_start(x, Stream(torch.Generator().manual_seed(5))) - x

    for pixel in delta.T:
        assert kstest(pixel.numpy(), "uniform", args=(-0.2, 0.4)).pvalue > 1e-3


@pytest.mark.parametrize("dimension", [1, 2, 12])
def test_l2_random_start_fills_the_volume_of_the_ball_evenly(dimension):
    x = torch.full((4000, dimension), 0.5, dtype=torch.float64)
    threat = Threat("L2", 0.3)

    delta = threat.random_start(x, Stream(torch.Generator().manual_seed(6)), box=False) - x

    # A ball of radius r holds (r / eps)^d of the volume, so that share is uniform on [0, 1].
    share = (threat.size(delta) / threat.eps) ** dimension
    assert kstest(share.numpy(), "uniform").pvalue > 1e-3
    # No direction is preferred: d * <unit, e>^2 has mean 1, with variance 2 (d - 1) / (d + 2).
    along = dimension * (delta[:, 0] / threat.size(delta)) ** 2
    spread = math.sqrt(2 * (dimension - 1) / (dimension + 2) / len(along))
    assert abs(along.mean().item() - 1) <= 4 * spread + 1e-12


def test_random_start_without_the_box_may_leave_it():
    x = torch.zeros(16, 5)

    start = Threat("Linf", 0.1).random_start(x, Stream(torch.Generator().manual_seed(7)), box=False)

    assert (start < 0).any()


@pytest.mark.parametrize("norm", NORMS)
def test_contains_allows_the_boundary_with_the_rounding_of_float32_and_nothing_beyond(norm):
    x, grad = draw((200, 3, 8, 8), torch.float32)
    x = 0.3 + 0.4 * x
    for eps in (1 / 255, 8 / 255, 0.25):
        threat = Threat(norm, eps)
        edge = x + eps * threat.steepest_ascent(grad)

        assert threat.contains(edge, x).all()
        assert not threat.contains(x + (1.001 * eps + 1e-5) * threat.steepest_ascent(grad), x).any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.001, 1.001])
def test_contains_refuses_one_bad_pixel_in_that_example_only(norm, bad):
    x = torch.tensor([[0.0, 0.5, 1.0]]).repeat(3, 1)
    x_adv = x.clone()
    x_adv[1, 0 if bad < 0.5 else 2] = bad

    assert Threat(norm, 1.0).contains(x_adv, x).tolist() == [True, False, True]


def test_scaled_changes_only_the_radius():
    assert Threat("L2", 0.5).scaled(0.5) == Threat("L2", 0.25)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_step_of_the_other_norms_is_along_the_steepest_direction(norm):
    x, grad = draw((5, 3, 2, 2), torch.float32)
    threat = Threat(norm, 0.3)

    assert torch.equal(threat.step(x, grad, 0.07), x + 0.07 * threat.steepest_ascent(grad))


@pytest.mark.parametrize("norm", NORMS)
def test_the_rounding_that_is_allowed_is_a_millionth_and_a_hundred_thousandth_of_the_radius(norm):
    threat = Threat(norm, 0.1)
    slack = 1e-6 + 1e-5 * 0.1
    assert threat.tolerance == slack
    for x, x_adv in ((0.0, 0.1 + slack), (0.0, -slack), (1.0, 1 + slack)):
        centre = torch.tensor([[x]], dtype=torch.float64)
        # In L1 a pixel that has moved may be off by 2^-25 more, which is 3e-8.
        points = torch.tensor([x_adv, x_adv + (1e-7 if x_adv > x else -1e-7)], dtype=torch.float64)
        assert [bool(threat.contains(point.view(1, 1), centre)) for point in points] == [True, False]
