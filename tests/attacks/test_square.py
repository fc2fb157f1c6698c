"""Is Square Attack good? Asked where the best point is known, and of what it costs and leaves alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from peers import HELD, NORMS, images, net, noise
from peers import square as package
from pydantic import ValidationError
from torch import Tensor, nn

from advbench.attacks.square import Square
from advbench.attacks.squares import Pyramids, pyramids
from advbench.data.base import Examples
from advbench.passes import counting
from advbench.threat import Threat


def test_the_area_halves_at_the_published_queries():
    area = Square(queries=10_000).area

    for halvings, last in enumerate((10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)):
        assert (area(last), area(last + 1)) == (0.8 / 2**halvings, 0.8 / 2 ** (halvings + 1))
    # At 500 queries of 1,000 one is at the 5,000th of 10,000.
    assert Square(queries=1000, rescale_schedule=True).area(500) == 0.8 / 128


@pytest.mark.parametrize(
    ("norm", "shape", "expected"),
    [
        # round(sqrt(p * height * width)): sqrt(0.8 * 1024) = 28.6, sqrt(0.4 * 1024) = 20.2, ...
        ("Linf", (32, 32), [29, 20, 14, 10, 7, 5, 4, 3]),
        ("L2", (32, 32), [29, 21, 15, 11, 7, 5, 5, 3]),
        ("L1", (32, 32), [29, 21, 15, 11, 7, 5, 5, 3]),
        ("Linf", (8, 8), [7, 5, 4, 3, 2, 1, 1, 1]),
        ("L2", (8, 8), [7, 5, 5, 3, 3, 3, 3, 3]),
        # No more than the image has.
        ("L2", (2, 2), [2] * 8),
        ("Linf", (40, 4), [4, 4, 4, 4, 3, 2, 1, 1]),
    ],
)
def test_sides_are_those_of_the_areas(norm, shape, expected):
    sides = Square(queries=5000).sides(Threat(norm, 0.1), *shape)

    assert len(sides) == 5000
    assert [sides[query] for query in (0, 11, 51, 201, 501, 1001, 2001, 4001)] == expected


class Plane(nn.Module):
    """Two logits, <w, x> + bias and 0."""

    def __init__(self, w: Tensor, bias: float) -> None:
        super().__init__()
        self.w, self.bias = w, bias

    def forward(self, x: Tensor) -> Tensor:
        height = (x * self.w).flatten(1).sum(1) + self.bias
        return torch.stack([height, torch.zeros_like(height)], dim=1)


@pytest.mark.parametrize("channels", [1, 2])
def test_linf_finds_the_best_corner_of_a_hyperplane_but_in_the_last_row_and_column(channels):
    w = torch.randn(channels, 6, 6, generator=torch.Generator().manual_seed(0))
    x, threat = images(8, channels, 6, 6), Threat("Linf", 0.1)

    found = Square(queries=2000).run(Plane(w, 100), x, torch.zeros(8, dtype=torch.int64), threat, noise(8))

    # Single pixels from query 501 on: 25 places, two or four colours.
    low, high = (x - 0.1).clamp_min(0), (x + 0.1).clamp_max(1)
    best = torch.where(w > 0, low, high)
    assert torch.equal(found[..., :-1, :-1], best[..., :-1, :-1])
    # What the package's squares never reach keeps the stripes of the start.
    assert ((found == low) | (found == high)).all()
    assert not torch.equal(found, best.expand_as(found))


@pytest.mark.parametrize(("norm", "order"), [("L2", 2), ("L1", 1)])
def test_pyramids_find_more_on_a_hyperplane_than_two_of_them_can_say(norm, order):
    w = torch.randn(1, 9, 9, generator=torch.Generator().manual_seed(0))
    x, threat = torch.full((8, 1, 9, 9), 0.5), Threat(norm, 0.2)

    found = Square(queries=1500).run(Plane(w, 100), x, torch.zeros(8, dtype=torch.int64), threat, noise(8))

    gained = -((found - x) * w).flatten(1).sum(1)
    shapes = [pyramids(side, order).float() for side in (3, 5, 7)]
    two = max(nn.functional.conv2d(w, shape[None, None]).abs().max() for s in shapes for shape in (s, s.T))
    assert norm == "L1" or (gained > 0.2 * two).all()
    assert (gained <= 0.2 * threat.dual_norm(w[None]) * (1 + 1e-5)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_an_outcome_is_the_same_in_any_batch_and_order(norm, digits_cnn, digits_test):
    model, threat = digits_cnn.eval().requires_grad_(False), Threat(norm, {"Linf": 0.08, "L2": 0.5, "L1": 2.0}[norm])
    x, y = digits_test.pixels(slice(0, 24)), digits_test.labels[:24]
    whole = Square(queries=150).run(model, x, y, threat, noise(24))
    assert 0 < (model(whole).argmax(1) != y).sum() < 24

    order = torch.randperm(24, generator=torch.Generator().manual_seed(2))
    for rows in (*order.split(7), order):
        part = Square(queries=150).run(model, x[rows], y[rows], threat, noise(24, rows=rows))
        assert torch.equal(part, whole[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_the_fooled_leave_at_once(norm):
    model, x, threat = net(3, 10), images(12, 3, 10, 10), Threat(norm, 2 * HELD[norm])
    y = model(x).argmax(1)
    attack = Square(queries=120)
    alone = 0
    for row in range(12):
        with counting(model) as passes:
            attack.run(model, x[row : row + 1], y[row : row + 1], threat, noise(12, rows=torch.tensor([row])))
        alone += passes.forward
    with counting(model) as passes:
        found = attack.run(model, x, y, threat, noise(12))

    fell = (model(found).argmax(1) != y).sum()
    assert 0 < fell < 12
    assert passes.forward == alone
    assert passes.forward < 12 * 121
    assert passes.backward == 0


def test_the_first_point_that_fools_is_returned_and_costs_nothing_more():
    model, x = net(1, 8), images(9, 1, 8, 8)
    right = model(x).argmax(1)
    with counting(model) as passes:
        found = Square().run(model, x, (right + 1) % 10, Threat("Linf", 1e-6), noise(9))

    assert passes.forward == 9
    assert Threat("Linf", 1e-6).contains(found, x).all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_no_success(value):
    class Broken(Plane):
        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            # What would be best for the attack is not finite.
            logits[logits[:, 0] < 99, int(value > 0)] = value
            return logits

    w = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(0))
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.zeros(4, dtype=torch.int64)
    broken = Broken(w - w.mean(), 100)
    with counting(broken) as passes:
        found = Square(queries=300).run(broken, x, y, Threat("Linf", 0.05), noise(4))

    assert broken(found).isfinite().all()
    assert passes.forward > 4
    assert Threat("Linf", 0.05).contains(found, x).all()


def test_where_no_answer_is_finite_the_start_is_returned():
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), torch.nan)

    x, threat = images(4, 1, 8, 8), Threat("L2", 0.5)
    found = Square(queries=20).run(Silent(), x, torch.zeros(4, dtype=torch.int64), threat, noise(4))

    with torch.inference_mode():
        expected = Pyramids(x, threat, noise(4)).start()
    assert torch.equal(found, expected)


def test_a_tie_is_decided_as_argmax_decides_it():
    class Tied(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ones(len(x), 3)

    with counting(model := Tied()) as passes:
        Square(queries=30).run(model, images(2, 1, 12, 12), torch.tensor([0, 1]), Threat("L2", 0.5), noise(2))

    # Class 1 loses the tie at once; class 0 wins every one of them.
    assert passes.forward == 2 + 30


def draws() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"].tolist()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_but_the_candidates_is_changed(norm):
    model, x = net(1, 8).requires_grad_(True), images(6, 1, 8, 8)
    y, kept, before = model(x).argmax(1), x.clone(), draws()

    found = Square(queries=70).run(model, x, y, Threat(norm, HELD[norm]), noise(6))

    assert draws() == before
    assert torch.equal(x, kept)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not found.requires_grad
    found.add_(1)  # an inference tensor would refuse


def test_the_hyper_parameters_of_the_standard_version():
    standard = package(net(1, 8), Threat("Linf", 0.1), 5000)
    ours = Square()

    assert (ours.queries, ours.p_init, ours.rescale_schedule) == (5000, standard.p_init, False)
    assert (ours.restarts, standard.n_restarts) == (1, 1)
    assert not ours.follows_gradient
    assert not ours.everywhere
    for wrong in ({"queries": 0}, {"p_init": 0.0}, {"p_init": 1.5}):
        with pytest.raises(ValidationError):
            Square.model_validate(wrong)


def test_alone_it_has_a_thousand_queries_of_the_same_law():
    assert Square().alone() == Square(queries=1000)
    assert Square(queries=10).alone() == Square(queries=10)
    assert Square().alone().sides(Threat("L2", 1), 32, 32) == Square().sides(Threat("L2", 1), 32, 32)[:1000]
    stretched = Square(rescale_schedule=True)
    assert stretched.alone() == stretched


def test_the_ladder_runs_it_in_batches_of_any_size(judged, digits_cnn, digits_test):
    some = Examples(digits_test.stored[:40], digits_test.labels[:40], digits_test.index[:40], digits_test.peak)
    found, parts = (
        judged(digits_cnn, some, [Square(queries=60)], Threat("Linf", 0.15), curve=[], alone=8, batch=batch)
        for batch in (40, 7)
    )

    assert found.broken_by == parts.broken_by
    assert 0 < found.scores.robust.accuracy < found.scores.clean.accuracy
    assert found.scores.alone_n == {"square": 8}
    # One pass and a gradient to look at the clean example; then 61 passes for each that stands, and its judgement. On
    # the sample of eight, PGD-20 looks twice whether larger balls are of use.
    assert found.ledger.forward.sum() <= 40 * (1 + 1 + 61 + 1) + 8 * 2 * 21
    correct = int((found.ledger.withstood["sign/further"] >= 0).sum())
    assert found.ledger.backward.sum() == 40 + correct * 2 * 20
