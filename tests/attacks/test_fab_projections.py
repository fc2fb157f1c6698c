"""Are FAB's projections the shortest? Asked of scipy's optimisers in float64, and of the authors' package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyautoattack import fab_projections as package
from scipy.optimize import brentq, linprog
from torch import Tensor

from advbench.attacks.fab_projections import onto_hyperplane
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
PACKAGE = {"Linf": package.projection_linf, "L2": package.projection_l2, "L1": package.projection_l1}


def problem(seed: int, d: int, *, reach: float, corners: float = 0.3) -> tuple[Tensor, Tensor, Tensor]:
    """A point of the box with a share of its coordinates at the bounds, weights, and a gap.

    The gap is `reach` of what the box lets <w, .> change, so that the plane is met for reach < 1 and missed for more.
    """
    source = torch.Generator().manual_seed(seed)
    x, w, coin = (torch.rand(d, generator=source, dtype=torch.float64) for _ in range(3))
    x = torch.where(coin < corners, x.round(), x)
    w = (2 * w - 1) * torch.rand(d, generator=source, dtype=torch.float64) ** 3
    w[coin > 0.95] = 0
    above = seed % 2 == 0
    most = torch.where((w > 0) == above, x, 1 - x) @ w.abs()
    return x, w, reach * most * (1 if above else -1)


def shortest(norm: Norm, x: Tensor, w: Tensor, gap: Tensor) -> float:
    """The length of the shortest move onto the plane within the box, by linear programming or by its multiplier."""
    place, weights, change, d = x.numpy(), w.numpy(), -float(gap), len(x)
    if norm == "L2":
        # The nearest point is clip(x - m w) for the one m that meets the plane.
        def missed(m: float) -> float:
            return float((np.clip(place - m * weights, 0, 1) - place) @ weights - change)

        m = brentq(missed, -1e7, 1e7, xtol=1e-15, maxiter=500)
        return float(np.linalg.norm(np.clip(place - m * weights, 0, 1) - place))
    low, high = -place, 1 - place
    if norm == "L1":  # move = up - down
        bounds = [(0, b) for b in high] + [(0, -b) for b in low]
        found = linprog(np.ones(2 * d), A_eq=[np.r_[weights, -weights]], b_eq=[change], bounds=bounds)
    else:  # |move_i| <= t
        eye, one = np.eye(d), np.ones((d, 1))
        found = linprog(
            np.r_[np.zeros(d), 1],
            A_ub=np.block([[eye, -one], [-eye, -one]]),
            b_ub=np.zeros(2 * d),
            A_eq=[np.r_[weights, 0]],
            b_eq=[change],
            bounds=[*zip(low, high, strict=True), (0, 1)],
        )
    assert found.success
    return float(found.fun)


@pytest.mark.parametrize("reach", [0.01, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("d", [1, 2, 7, 40])
@pytest.mark.parametrize("norm", NORMS)
def test_the_move_is_the_shortest_that_meets_the_plane_inside_the_box(norm, d, reach):
    for seed in range(6):
        x, w, gap = problem(seed, d, reach=reach)

        move = onto_hyperplane(norm, x, w, gap)

        assert ((x + move >= -1e-12) & (x + move <= 1 + 1e-12)).all()
        torch.testing.assert_close(w @ move, -gap, rtol=1e-9, atol=1e-12)
        length = float(Threat(norm, 1).size(move[None]))
        assert length == pytest.approx(shortest(norm, x, w, gap), rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("reach", [1.0001, 3.0])
@pytest.mark.parametrize("norm", NORMS)
def test_a_plane_out_of_the_boxs_reach_is_approached_to_the_nearest_corner(norm, reach):
    for seed in range(6):
        x, w, gap = problem(seed, 20, reach=reach)

        there = x + onto_hyperplane(norm, x, w, gap)

        # <w, .> falls when it lies above the plane; coordinates without a weight stay.
        corner = torch.where(w == 0, x, ((w < 0) == (gap > 0)).double())
        torch.testing.assert_close(there, corner, rtol=0, atol=1e-12)


@pytest.mark.parametrize("reach", [0.02, 0.4, 1.5])
@pytest.mark.parametrize("norm", NORMS)
def test_the_move_is_the_packages(norm, reach):
    """Where several moves are shortest, as in Linf, the one is taken that the package takes."""
    problems = [problem(seed, 300, reach=reach) for seed in range(40)]
    x, w, gap = (torch.stack([p[part] for p in problems]).float() for part in range(3))
    # In L2 and L1 the package never moves a coordinate of a weight below 1e-8.
    w = torch.where(w.abs() < 1e-7, 0, w)

    move = onto_hyperplane(norm, x, w, gap)

    theirs = PACKAGE[norm](x, w, (w * x).sum(1) - gap)
    torch.testing.assert_close(move, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_newton_goes_on_for_as_long_as_coordinates_arrive_one_by_one(norm):
    # Each coordinate has a thousandth of the room of the next and ten times its weight: a step an arrival.
    d = 24
    x = torch.tensor(1e-3, dtype=torch.float64) ** torch.arange(d).flip(0)
    w = torch.tensor(10.0, dtype=torch.float64) ** torch.arange(d).flip(0)
    for share in torch.linspace(0.05, 0.95, 10, dtype=torch.float64):
        # All that arrive before the last one, and a share of its own way.
        gap = (x * w)[:-1].sum() + share * (x * w)[-1]

        move = onto_hyperplane(norm, x, w, gap)

        torch.testing.assert_close(w @ move, -gap, rtol=1e-12, atol=0)
        assert ((x + move >= 0) & (move <= 0)).all()
        # Beside one that is done at once.
        beside = onto_hyperplane(norm, torch.stack([torch.full_like(x, 0.5), x]), w, torch.stack([gap * 1e-9, gap]))
        torch.testing.assert_close(beside[1], move, rtol=1e-12, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_plane_is_met_already_nothing_moves(norm):
    x, w, _ = problem(0, 12, reach=0)

    assert (onto_hyperplane(norm, x, w, torch.zeros((), dtype=torch.float64)) == 0).all()
    # A gradient of zero has no plane.
    assert (onto_hyperplane(norm, x, torch.zeros_like(w), torch.ones((), dtype=torch.float64)) == 0).all()


@pytest.mark.parametrize("scale", [1e-25, 1e20])
@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_weights_does_not_matter(norm, scale):
    x, w, gap = (part.float() for part in problem(3, 30, reach=0.2))

    scaled = onto_hyperplane(norm, x, w * scale, gap * scale)

    torch.testing.assert_close(scaled, onto_hyperplane(norm, x, w, gap), rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_points_of_one_plane_are_projected_as_each_alone(norm):
    problems = [problem(seed, 33, reach=0.1 + 0.2 * seed) for seed in range(6)]
    x, w, gap = (torch.stack([p[part] for p in problems]).float() for part in range(3))
    points, gaps = torch.stack([x, x.flip(1)]), torch.stack([gap, gap / 2])

    moves = onto_hyperplane(norm, points, w, gaps)

    alone = [[onto_hyperplane(norm, points[i, j], w[j], gaps[i, j]) for j in range(6)] for i in range(2)]
    assert torch.equal(moves, torch.stack([torch.stack(row) for row in alone]))


@pytest.mark.parametrize("norm", NORMS)
def test_a_number_that_is_none_stays_with_its_example(norm):
    problems = [problem(seed, 16, reach=0.3) for seed in range(3)]
    x, w, gap = (torch.stack([p[part] for p in problems]) for part in range(3))
    clean = onto_hyperplane(norm, x, w, gap)
    w[1, 4] = torch.nan

    moves = onto_hyperplane(norm, x, w, gap)

    assert torch.equal(moves[[0, 2]], clean[[0, 2]])
    assert moves[1].isnan().any()
