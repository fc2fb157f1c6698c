"""The curve knows what the rungs found, the signs meet the sample alone, and a doubt spares the dear rungs."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.ledger import STANDING
from advbench.scores import Verdicts
from advbench.seeds import BlockNoise
from advbench.threat import Threat

RADII = ["1/50", "1/20", "1/10", "3/20", "1/5"]
LINF = Threat("Linf", 0.1)


@pytest.fixture(scope="module")
def few(digits_test: Examples) -> Examples:
    """120 digits."""
    return Examples(digits_test.stored[:120], digits_test.labels[:120], digits_test.index[:120], digits_test.peak)


class Knows(Attack):
    """Moves the whole image a tenth towards grey, which a model of the mean pixel is fooled by."""

    name = "knows"
    everywhere: ClassVar[bool] = False

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        del model, y, noise
        return x - 0.8 * threat.eps


class Flat(nn.Module):
    """Class 1 where the mean pixel is above 0.5, without any gradient."""

    def forward(self, x: Tensor) -> Tensor:
        high = (x.flatten(1).mean(1, keepdim=True) > 0.5).float()
        return torch.cat([1 - high, high], 1) + 0 * x.flatten(1)[:, :1]


def bright(value: int, n: int = 6) -> Examples:
    return Examples(
        torch.full((n, 1, 2, 2), value, dtype=torch.uint8), torch.ones(n, dtype=torch.int64), torch.arange(n), 255
    )


def test_what_is_broken_at_a_radius_is_broken_at_the_larger_ones(judged, digits_cnn, few):
    found = judged(digits_cnn, few, [FGSM(), PGD(steps=10)], LINF, curve=RADII)

    columns = [found.ledger.withstood[f"curve/{eps}"] for eps in RADII]
    assert all((larger <= smaller).all() for smaller, larger in pairwise(columns))
    assert len({int(column.sum()) for column in columns}) >= 4
    # At the task's own radius the curve knows of everything that a rung has found.
    standing = (found.ledger.broken_by == STANDING).to(torch.int8)
    assert (found.ledger.withstood["curve/1/10"] <= standing).all()


def test_the_curve_counts_what_a_rung_found_within_the_radius(judged):
    # PGD finds nothing without a gradient; the rung found a point at a distance of 0.8 * 0.15 = 0.12.
    found = judged(Flat(), bright(140), [Knows()], Threat("Linf", 0.15), curve=["1/10", "3/25", "3/20"], classes=2)

    assert found.scores.robust.accuracy == 0
    assert found.scores.curve == {"1/10": 1, "3/25": 0, "3/20": 0}
    assert found.scores.distance == pytest.approx(0.12)
    assert found.ledger.distance.tolist() == pytest.approx([0.12] * 6)


def test_where_nothing_is_known_there_is_no_distance(judged):
    found = judged(Flat(), bright(250), [FGSM()], Threat("Linf", 0.1), curve=[], classes=2)

    assert found.ledger.distance.isinf().all()
    assert found.scores.distance is None


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_ball_that_holds_all_images_leaves_an_honest_model_nothing(judged, digits_cnn, few, norm):
    eps = {"Linf": 0.01, "L2": 0.02, "L1": 0.1}[norm]

    found = judged(digits_cnn, few, [FGSM()], Threat(norm, eps), curve=[], alone=30)

    unbounded, further = found.ledger.withstood["sign/unbounded"], found.ledger.withstood["sign/further"]
    assert int((unbounded >= 0).sum()) == int((further >= 0).sum()) > 20
    assert int((unbounded == 1).sum()) == 0
    # The signs are no rungs: nothing falls to them, and no score speaks of them.
    assert set(found.broken_by) <= {None, "clean", "fgsm"}
    assert set(found.scores.alone) == {"fgsm"}
    # In a ball of twice a small radius, most still stand.
    assert int((further == 1).sum()) > 15


def test_a_model_without_a_gradient_stands_in_any_ball(judged):
    found = judged(Flat(), bright(250), [FGSM()], Threat("Linf", 0.1), curve=[], alone=6, classes=2)

    assert found.ledger.withstood["sign/unbounded"].tolist() == [1] * 6


class Dear(FGSM):
    """A rung behind the cheap ones, which counts how often it is asked."""

    everywhere: ClassVar[bool] = False
    asked: ClassVar[list[int]] = []

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        self.asked.append(len(x))
        return super().run(model, x, y, threat, noise)


@pytest.mark.parametrize(
    ("stop", "why", "runs"), [(None, (), True), (None, ("masked",), False), (False, ("masked",), True)]
)
def test_a_doubt_spares_the_dear_rungs_unless_told_otherwise(judged, digits_cnn, few, stop, why, runs):
    Dear.asked.clear()
    seen: list[Verdicts] = []

    def doubt(found: Verdicts) -> tuple[str, ...]:
        seen.append(found)
        return why

    ladder = [FGSM(), PGD(steps=3), Dear(label="dear")]
    found = judged(digits_cnn, few, ladder, LINF, curve=["1/20"], block=50, stop=stop, doubt=doubt)

    assert bool(Dear.asked) == runs
    if stop is None:
        # It is asked once, about all blocks, and before anything dear.
        [before] = seen
        assert set(before.scores.attacks) == {"fgsm", "pgd"}
        assert len(before.ledger) == 120
        assert before.scores.robust is None
    assert found.stopped == (() if runs else why)
    assert (found.scores.robust is not None) == runs
    assert bool(found.scores.curve) == runs
    assert set(found.scores.attacks) == ({"fgsm", "pgd", "dear"} if runs else {"fgsm", "pgd"})


def test_a_ladder_without_dear_rungs_is_not_stopped(judged, digits_cnn, few):
    found = judged(digits_cnn, few, [FGSM()], LINF, curve=[], doubt=lambda _: ("masked",))

    assert found.stopped == ()
    assert found.scores.robust is not None


def test_after_a_stop_the_evaluation_goes_on_where_it_was(judged, digits_cnn, few):
    ladder = [PGD(steps=3), Dear(label="dear")]
    whole = judged(digits_cnn, few, ladder, LINF, curve=["1/20"])

    judged(digits_cnn, few, ladder, LINF, curve=["1/20"], folder="j", doubt=lambda _: ("masked",))
    said: list[str] = []
    tell = lambda *news: said.append(news[3])  # noqa: E731
    again = judged(digits_cnn, few, ladder, LINF, curve=["1/20"], folder="j", stop=False, tell=tell)

    assert said == ["dear", "curve"]
    assert again.scores == whole.scores
    assert torch.equal(again.ledger.forward, whole.ledger.forward)


class Dice(nn.Module):
    """Adds noise to the image from torch's global stream."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.2 * torch.randn_like(x))


def test_a_model_that_draws_numbers_draws_the_same_again_and_leaves_the_stream(judged, digits_cnn, few):
    before = torch.random.get_rng_state()

    one = judged(Dice(digits_cnn), few, [PGD(steps=3)], LINF, curve=["1/20"], votes=5)
    torch.randn(3)
    other = judged(Dice(digits_cnn), few, [PGD(steps=3)], LINF, curve=["1/20"], votes=5)

    assert one.scores == other.scores
    torch.random.set_rng_state(before)
    judged(Dice(digits_cnn), few, [FGSM()], LINF, curve=[])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_vote_takes_less_from_a_model_that_draws_numbers_than_one_lucky_draw(judged, digits_cnn, few):
    ladder = [PGD(steps=3, restarts=4)]

    once = judged(Dice(digits_cnn), few, ladder, LINF, curve=[], alone=0)
    voted = judged(Dice(digits_cnn), few, ladder, LINF, curve=[], alone=0, votes=15)

    assert voted.scores.robust.accuracy > once.scores.robust.accuracy
