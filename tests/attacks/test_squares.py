"""Are the squares those of the authors' package? Asked of its own points, and of all squares that there are."""

from __future__ import annotations

import pytest
import torch
from peers import HELD, NORMS, images, net, noise
from peers import square as package
from pyautoattack.square import SquareAttack as Package
from torch import Tensor

from advbench.attacks.square import Square
from advbench.attacks.squares import Constant, Pyramids, pyramids
from advbench.passes import counting
from advbench.threat import Threat


def last_point(attack: Package, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Where the package's attack arrives; of those who stand it returns the clean example."""
    with torch.random.fork_rng([]):
        attack.init_hyperparam(x)
        torch.manual_seed(seed)
        return attack.attack_single_run(x, y)[1]


@pytest.mark.parametrize("queries", [7, 1000, 5000, 12_000])
@pytest.mark.parametrize("rescale", [False, True])
def test_the_squares_shrink_as_in_the_package(queries, rescale):
    ours = Square(queries=queries, rescale_schedule=rescale)
    theirs = package(net(1, 8), Threat("Linf", 0.1), queries, rescale=rescale)

    assert [ours.area(query) for query in range(queries)] == [theirs.p_selection(query) for query in range(queries)]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 7, 12, 25])
@pytest.mark.parametrize(("order", "norm"), [(2, "L2"), (1, "L1")])
def test_two_pyramids_are_those_of_the_package(order, norm, side):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)  # draws 0.496 first, so that it is not turned
        theirs = package(net(1, 8), Threat(norm, 1.0), 1).eta(side)

    ours = pyramids(side, order)
    assert torch.linalg.vector_norm(ours, order).item() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 10)])
def test_an_example_alone_meets_the_numbers_and_the_points_of_the_package(norm, channels, size):
    model, x, threat = net(channels, size), images(4, channels, size, size), Threat(norm, HELD[norm])
    y = model(x).argmax(1)
    equal = 0
    for seed in range(4):
        one, label = x[seed : seed + 1], y[seed : seed + 1]
        expected = last_point(package(model, threat, 220), one, label, seed)
        found = Square(queries=220).run(model, one, label, threat, noise(1, seed))
        equal += (found - expected).abs().max().item() < 1e-5
    # In L2 and L1 roundings differ, and may decide on a candidate that is no better and no worse; then ways part.
    assert equal == 4 if norm == "Linf" else equal >= 3


@pytest.mark.parametrize(("share", "layout"), [(1, torch.contiguous_format), (20, torch.channels_last)])
@pytest.mark.parametrize("shape", [(3, 10, 10), (1, 8, 8), (2, 7, 12), (1, 12, 7), (1, 4, 4), (3, 1, 1), (1, 2, 3)])
@pytest.mark.parametrize("norm", NORMS)
def test_every_candidate_is_in_the_ball_and_the_box(norm, shape, layout, share):
    x, threat = images(5, *shape).to(memory_format=layout), Threat(norm, HELD[norm] * share)
    squares = (Constant if norm == "Linf" else Pyramids)(x, threat, noise(5))
    seen = 0
    for candidate, whose in squares.candidates(Square(queries=150).sides(threat, *shape[1:])):
        rows = torch.arange(5) if whose is None else whose
        assert candidate.shape == (len(rows), *shape)
        assert threat.contains(candidate, x[rows]).all()
        assert candidate.min() >= 0
        assert candidate.max() <= 1
        if seen % 3 == 0:
            squares.accept(rows, candidate.clone())
        seen += 1
    assert seen > 1 or shape[1:] == (1, 1)


def test_linf_starts_with_stripes_and_changes_one_square_to_one_colour():
    x, threat = images(7, 3, 9, 11), Threat("Linf", 0.1)
    low, high = (x - 0.1).clamp_min(0), (x + 0.1).clamp_max(1)
    squares = Constant(x, threat, noise(7))
    places: list[tuple[int, int]] = []
    sides = [4] * 130
    for query, (candidate, whose) in enumerate(squares.candidates(sides)):
        assert whose is None, "5 * 7 * 8 squares are too many to meet again in 130 queries"
        up = candidate == high
        assert (up | (candidate == low)).all()
        if not query:
            assert torch.equal(up, up[:, :, :1].expand_as(up))
            assert 60 < up[:, :, 0].sum() < 170  # half of 231
            continue
        for now, before in zip(up, squares.point == high, strict=True):
            channel, row, column = (now != before).nonzero().T
            if len(row):
                top, left = int(row.min()), int(column.min())
                places += [(top, left)] * int(row.max() - top == 3 and column.max() - left == 3)
                assert row.max() - top < 4
                assert column.max() - left < 4
                for one in channel.unique():
                    assert len(now[one, row[channel == one], column[channel == one]].unique()) == 1
    # Uniform over the places that the package draws: 9 - 4 by 11 - 4, the last of each left out.
    counts = torch.zeros(6, 8)
    for place in places:
        counts[place] += 1
    assert counts[5].sum() == counts[:, 7].sum() == 0
    expected = len(places) / 35
    chi2 = ((counts[:5, :7] - expected) ** 2 / expected).sum()
    assert len(places) > 300
    assert chi2 < 34 + 4 * (2 * 34) ** 0.5


@pytest.mark.parametrize("norm", ["L2", "L1"])
def test_pyramids_spend_the_whole_radius_inside_the_box(norm):
    # Grey images far from the box: what is given away, left over or held there is all spent again.
    x, threat = torch.full((6, 1, 10, 10), 0.5), Threat(norm, 0.3)
    squares = Pyramids(x, threat, noise(6))
    for query, (candidate, _) in enumerate(squares.candidates([5] * 40)):
        torch.testing.assert_close(threat.size(candidate - x), torch.full((6,), 0.3), rtol=5e-6, atol=0)
        moved = ((candidate - squares.point).abs() > 1e-6).flatten(1).sum(1)
        assert query == 0 or (moved <= 50).all(), "two squares of 5 by 5"
        squares.accept(torch.arange(6), candidate.clone())


@pytest.mark.parametrize(("norm", "inside"), [("L2", 0), ("L1", 1e-6)])
def test_in_l1_pyramids_stay_a_millionth_inside_as_the_package_s(norm, inside):
    x, threat = torch.full((3, 1, 10, 10), 0.5, dtype=torch.float64), Threat(norm, 0.3)
    squares = Pyramids(x, threat, noise(3))
    for candidate, _ in squares.candidates([5] * 6):
        expected = torch.full((3,), 0.3 * (1 - inside), dtype=torch.float64)
        torch.testing.assert_close(threat.size(candidate - x), expected, rtol=1e-9, atol=0)
        squares.accept(torch.arange(3), candidate.clone())


def test_from_one_point_nothing_is_asked_twice_and_nothing_that_changes_nothing():
    x, threat = images(1, 1, 8, 8), Threat("Linf", 0.1)
    low, high = (x - 0.1).clamp_min(0), (x + 0.1).clamp_max(1)
    squares = Constant(x, threat, noise(1))
    asked: list[bytes] = []
    rounds = 0
    for query, (candidate, _) in enumerate(squares.candidates([3] * 1000)):
        if query:
            asked.append(candidate.numpy().tobytes())
        start = squares.point.clone()
        squares_of_three = ((top, left, colour) for top in range(5) for left in range(5) for colour in (low, high))
        expected: list[bytes] = []
        for top, left, colour in squares_of_three:
            image = start.clone()
            inside = ..., slice(top, top + 3), slice(left, left + 3)
            image[inside] = colour[inside]
            if not torch.equal(image, start):
                expected.append(image.numpy().tobytes())
        if len(asked) == len(expected):
            # All there is, each once; from another point the questions are new ones.
            assert sorted(asked) == sorted(expected)
            asked.clear()
            squares.accept(torch.tensor([0]), candidate.clone())
            rounds += 1
    assert rounds > 2


def test_what_is_not_asked_again_changes_nothing():
    model, x, threat = net(1, 8), images(1, 1, 8, 8), Threat("Linf", 0.1)
    y = model(x).argmax(1)
    model.get_parameter("3.bias")[y] += 10  # it stands
    with counting(model) as ours:
        found = Square().run(model, x, y, threat, noise(1))
    with counting(model) as theirs:
        expected = last_point(package(model, threat, 5000), x, y, 0)

    assert (found - expected).abs().max() < 1e-6
    assert theirs.forward == 5001
    # At the end no single pixel makes it better, and there are 49 of them.
    assert ours.forward < 1500


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("Linf", 0.15), ("L2", 0.7), ("L1", 2.5)])
def test_as_many_fall_as_to_the_package(norm, eps, digits_cnn, digits_test):
    model, threat, seeds, n = digits_cnn.eval().requires_grad_(False), Threat(norm, eps), 5, 60
    x, y = digits_test.pixels(slice(0, n)), digits_test.labels[:n]
    right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    ours, theirs = (torch.zeros(seeds, len(y), dtype=torch.float64) for _ in range(2))
    for seed in range(seeds):
        found = Square(queries=60).run(model, x, y, threat, noise(len(y), seed))
        ours[seed] = (model(found).argmax(1) != y).double()
        with torch.random.fork_rng([]):
            found = package(model, threat, 60, seed).perturb(x, y)
        theirs[seed] = (model(found).argmax(1) != y).double()

    share = torch.cat([ours, theirs]).mean(0)
    assert 0.2 < share.mean() < 0.8
    # Our examples fall independently: the variance of a run's count is the sum of p (1 - p). The package's share their
    # squares, so that its own seeds must tell, which at least vary as much.
    independent = (share * (1 - share)).sum()
    spread = independent + torch.maximum(theirs.sum(1).var(), independent)
    difference = ours.sum(1).mean() - theirs.sum(1).mean()
    assert independent > 0.5
    assert difference.abs() < 4 * (spread / seeds).sqrt()
