"""What counts as right and as fooled, on models whose answers are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.base import fooled
from advbench.attacks.pgd import PGD
from advbench.judge import judge
from advbench.threat import Threat

X = torch.tensor([[0.1], [0.4], [0.6], [0.9]])
ONE = torch.ones(4, dtype=torch.int64)


class Sign(nn.Module):
    """Class 1 from a half on."""

    def forward(self, x: Tensor) -> Tensor:
        away = 10 * (x.flatten(1)[:, :1] - 0.5)
        return torch.cat([-away, away], 1)


class Guarded(Sign):
    """The same behind a detector that refuses whatever is below a quarter or above three quarters."""

    def reject(self, x: Tensor) -> Tensor:
        return (x.flatten(1)[:, 0] - 0.5).abs() - 0.25


class Moody(nn.Module):
    """Right with probability p."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        right = (torch.rand(len(x)) < self.p).float()
        return torch.stack([1 - right, right], 1) + 0 * x.flatten(1)[:, :1]


def test_without_a_detector_right_and_fooled_are_opposites():
    said = judge(Sign(), X, ONE)

    assert said.right.tolist() == [False, False, True, True]
    assert torch.equal(said.fooled, ~said.right)
    assert not said.refused.any()


def test_what_the_detector_refuses_is_neither_right_nor_fooled():
    said = judge(Guarded(), X, ONE)

    assert said.refused.tolist() == [True, False, False, True]
    assert said.right.tolist() == [False, False, True, False]
    assert said.fooled.tolist() == [False, True, False, False]


@pytest.mark.parametrize("score", [torch.nan, 0.0, -0.0])
def test_a_detector_refuses_above_zero_and_never_without_a_number(score):
    guarded = Guarded()
    guarded.reject = lambda x: torch.full((len(x),), score)  # type: ignore[method-assign]

    assert not judge(guarded, X, ONE).refused.any()


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_no_answer(bad):
    model = lambda x: torch.tensor([[0.0, bad]]).repeat(len(x), 1)  # noqa: E731

    said = judge(model, X, ONE)  # type: ignore[arg-type]

    assert said.fooled.all()
    assert not said.right.any()


@pytest.mark.parametrize(("p", "right"), [(0.7, 1.0), (0.3, 0.0)])
def test_a_vote_finds_what_a_random_model_mostly_says(p, right):
    x, labels = torch.zeros(500, 1), torch.ones(500, dtype=torch.int64)
    torch.manual_seed(0)

    once, voted = judge(Moody(p), x, labels), judge(Moody(p), x, labels, votes=101)

    # One pass is right with probability p, 101 of them together with 1 - 2e-5: the binomial tail beyond a half.
    assert abs(float(once.right.float().mean()) - p) < 4 * (p * (1 - p) / 500) ** 0.5
    assert float(voted.right.float().mean()) == right
    assert torch.equal(voted.fooled, ~voted.right)


def test_a_tie_is_neither():
    answers = iter([torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])])

    said = judge(lambda x: next(answers), X[:1], ONE[:1], votes=2)  # type: ignore[arg-type]

    assert not said.right.any()
    assert not said.fooled.any()


def test_an_example_stays_in_the_attack_while_the_detector_refuses_it():
    logits = Guarded()(X)

    assert fooled(Sign(), X, logits, ONE).tolist() == [True, True, False, False]
    assert fooled(Guarded(), X, logits, ONE).tolist() == [False, True, False, False]


def test_the_ledger_counts_what_the_detector_lets_through_only(judged):
    from advbench.data.base import Examples

    # Pixels of 0.6 are right; the attack moves them to 0.45, where a detector from 0.5 down refuses them.
    test = Examples(torch.full((8, 1, 1, 1), 153, dtype=torch.uint8), torch.ones(8, dtype=torch.int64),
                    torch.arange(8), 255)  # fmt: skip
    strict = Sign()
    strict.reject = lambda x: 0.5 - x.flatten(1)[:, 0]  # type: ignore[assignment]
    attack, threat = [PGD(steps=5, random_start=False)], Threat("Linf", 0.15)

    assert judged(Sign(), test, attack, threat, curve=[], classes=2).scores.robust.accuracy == 0
    guarded = judged(strict, test, attack, threat, curve=[], classes=2)
    assert guarded.scores.robust.accuracy == 1
    assert guarded.scores.rejected.accuracy == 0
    assert judged(Sign(), test, attack, threat, curve=[], classes=2).scores.rejected is None


def test_an_untouched_image_that_is_refused_is_not_right(judged):
    from advbench.data.base import Examples

    test = Examples(torch.tensor([153, 255], dtype=torch.uint8).view(2, 1, 1, 1), ONE[:2], torch.arange(2), 255)

    found = judged(Guarded(), test, [PGD(steps=1)], Threat("Linf", 0.01), curve=[], classes=2)

    assert found.scores.clean.accuracy == 0.5
    assert found.scores.rejected.accuracy == 0.5
