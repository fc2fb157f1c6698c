"""How far from a maximum of its ball a point is, against closed forms and against bisection."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advbench.attacks.pgd import input_gradient
from advbench.threat import Norm, Threat

EPS: dict[Norm, float] = {"Linf": 0.2, "L2": 1.0, "L1": 3.0}
every_norm = pytest.mark.parametrize("norm", EPS)


@pytest.fixture
def images() -> Tensor:
    """A third of the pixels at the box, as in black and white images."""
    draw = torch.Generator().manual_seed(0)
    return (1.5 * torch.rand(40, 1, 5, 5, generator=draw, dtype=torch.float64) - 0.25).clamp(0, 1)


@pytest.fixture
def slopes(images: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(images.shape, generator=draw, dtype=torch.float64)


@every_norm
def test_it_is_the_largest_gain_in_the_ball(norm: Norm, images, slopes):
    threat = Threat(norm, EPS[norm])
    inside = images + 0.7 * threat.eps * threat.steepest_ascent(slopes.flip(0))
    others = [images + threat.eps * threat.steepest_ascent(torch.randn_like(slopes)) for _ in range(200)]
    best = images + threat.eps * threat.steepest_ascent(slopes)

    fosc = threat.fosc(inside, images, slopes)

    assert torch.allclose(fosc, ((best - inside) * slopes).flatten(1).sum(1), atol=1e-12)
    assert all((((z - inside) * slopes).flatten(1).sum(1) <= fosc + 1e-12).all() for z in others)
    assert threat.fosc(best, images, slopes).abs().max() < 1e-12
    # Of a gradient that is nothing there is nothing to gain.
    assert (threat.fosc(inside, images, torch.zeros_like(slopes)) == 0).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_on_a_linear_model_the_ascent_ends_at_zero(norm: Norm):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    x, y = 0.3 + 0.4 * torch.rand(8, 1, 8, 8), torch.arange(8) % 2
    threat = Threat(norm, 0.2)
    x_adv = x + threat.eps * threat.steepest_ascent(input_gradient(model, x, y))

    grad = input_gradient(model, x_adv, y)

    assert threat.fosc(x_adv, x, grad).abs().max() < 1e-6
    assert threat.fosc(x_adv, x, grad, box=True).abs().max() < 1e-6
    assert threat.fosc(x, x, grad).min() > 1e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_farthest_point_of_an_l2_ball_in_the_box_is_that_of_a_bisection(images, slopes, dtype):
    slopes[:, :, 0] = 0  # pixels without a say
    for eps in (1e-3, 0.3, 1.0, 2.0, 3.0, 10.0):
        room = torch.where(slopes > 0, 1 - images, images)
        low, high = torch.zeros(40, 1, 1, 1, dtype=torch.float64), torch.full((40, 1, 1, 1), 1e6, dtype=torch.float64)
        for _ in range(200):
            time = (low + high) / 2
            far = (time * slopes.abs()).minimum(room).flatten(1).norm(dim=1).view_as(time) > eps
            low, high = torch.where(far, low, time), torch.where(far, time, high)
        expected = images + slopes.sign() * (low * slopes.abs()).minimum(room)

        found = Threat("L2", eps).farthest(images.to(dtype), slopes.to(dtype))

        assert torch.allclose(found, expected.to(dtype), rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-9), eps


def test_an_l2_ball_that_just_reaches_the_corner_of_the_box_ends_in_it(images, slopes):
    corners = (slopes > 0).double()
    for x, slope, corner in zip(images.split(1), slopes.split(1), corners.split(1), strict=True):
        for rounding in (1 - 1e-15, 1, 1 + 1e-15):
            threat = Threat("L2", (corner - x).norm().item() * rounding)
            assert torch.allclose(threat.farthest(x, slope), corner, rtol=0, atol=1e-9)


def test_the_farthest_point_of_other_balls_in_the_box(images, slopes):
    low, high = (images - 0.2).clamp_min(0), (images + 0.2).clamp_max(1)
    assert torch.equal(Threat("Linf", 0.2).farthest(images, slopes), torch.where(slopes > 0, high, low))

    gain = ((Threat("L1", 3.0).farthest(images, slopes) - images) * slopes).flatten(1).sum(1)
    for row in range(len(images)):
        # Greedy by hand: the steepest pixels first, each as far as the box.
        left, expected = 3.0, 0.0
        for slope, pixel in sorted(
            zip(slopes[row].flatten().tolist(), images[row].flatten().tolist(), strict=True), key=lambda at: -abs(at[0])
        ):
            way = min(left, 1 - pixel if slope > 0 else pixel)
            left, expected = left - way, expected + way * abs(slope)
        assert gain[row].item() == pytest.approx(expected, rel=1e-12)


@every_norm
def test_with_the_box_it_is_smaller_and_zero_where_the_box_allows_no_more(norm: Norm, images, slopes):
    threat = Threat(norm, EPS[norm])
    x_adv = threat.project(images + 0.5 * threat.eps * threat.steepest_ascent(slopes.flip(0)), images)
    best = threat.farthest(images, slopes)

    assert threat.contains(best, images).all()
    boxed = threat.fosc(x_adv, images, slopes, box=True)
    assert (boxed >= -1e-12).all()
    assert (boxed <= threat.fosc(x_adv, images, slopes) + 1e-12).all()
    assert threat.fosc(best, images, slopes, box=True).abs().max() < 1e-12
    # Pixels at the box hold the plain criterion up.
    assert threat.fosc(best, images, slopes).min() > 1e-3


@every_norm
def test_a_saturated_model_s_gradients_are_not_lost(norm: Norm, images, slopes):
    threat = Threat(norm, EPS[norm])

    tiny = threat.farthest(images.float(), 1e-25 * slopes.float())

    assert torch.allclose(tiny, threat.farthest(images.float(), slopes.float()), atol=1e-6)
    assert torch.equal(threat.farthest(images, torch.zeros_like(slopes)), images)
    # As at the first step of an eps ramp.
    assert torch.equal(Threat(norm, 0.0).farthest(images, slopes), images)
    assert torch.equal(Threat(norm, 0.0).farthest(images, torch.zeros_like(slopes)), images)
