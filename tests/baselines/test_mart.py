"""mart: its terms against hand computations, and its step against a hand-written one."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from one_step import EPS, defense, noise, small_network, state_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench.attacks.pgd import ascend
from advbench.passes import counting
from advbench.spec import BadInput
from advbench.threat import Norm, Threat


class Fixed(nn.Module):
    """Answers the first call as it is told, and every later one in the second way: clean, then adversarial."""

    def __init__(self, clean: Tensor, adversarial: Tensor) -> None:
        super().__init__()
        self.answers = nn.ParameterList([clean, adversarial])
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return self.answers[min(max(self.calls - 1, 0), 1)] + 0 * x.sum()


def test_the_loss_is_the_papers_numbers():
    """Two images of class 0 whose probabilities are known: one read well when clean, one read badly."""
    p = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.6, 0.3]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.2, 0.3], [0.2, 0.7, 0.1]], dtype=torch.float64)
    state = state_of(Fixed(p.log(), q.log()))

    loss = defense("mart", beta=5.0, steps=1).loss(state, torch.full((2, 1, 2, 2), 0.5).double(), torch.tensor([0, 0]))

    bce = -math.log(0.5) - math.log(1.0001 - 0.3) - math.log(0.2) - math.log(1.0001 - 0.7)
    kl_first = 0.8 * math.log(0.8 / 0.5) + 0.1 * math.log(0.1 / 0.2) + 0.1 * math.log(0.1 / 0.3)
    kl_second = 0.1 * math.log(0.1 / 0.2) + 0.6 * math.log(0.6 / 0.7) + 0.3 * math.log(0.3 / 0.1)
    # The second image, of which 0.9 of the probability is missing, weighs 4.5 times as much as the first.
    assert loss.item() == pytest.approx((bce + 5 * (0.2 * kl_first + 0.9 * kl_second)) / 2, abs=1e-12)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_is_the_papers_by_hand(norm: Norm, batch: Any):
    x, y = batch
    model = small_network()
    hand, threat = copy.deepcopy(model), Threat(norm, EPS)
    start = threat.random_start(x, noise())

    defense("mart", beta=3.0, steps=4).step(state_of(model, threat), x, y)

    x_adv = ascend(hand.eval(), x, y, threat, start=start, steps=4, step_size=EPS / 4)
    hand.train()
    p, logits = hand(x).softmax(1), hand(x_adv)
    q = logits.softmax(1)
    rows = torch.arange(12)
    others = torch.stack([q[:, [k for k in range(3) if k != int(label)]][row] for row, label in enumerate(y)])
    boosted = cross_entropy(logits, y) - (1.0001 - others.max(1).values).log().mean()
    weighted = ((p * (p / q).log()).sum(1) * (1 - p[rows, y])).mean()
    grads = torch.autograd.grad(boosted + 3 * weighted, [*hand.parameters()])
    for now, old, g in zip(model.parameters(), hand.parameters(), grads, strict=True):
        torch.testing.assert_close(now, old - 0.1 * g, rtol=0, atol=1e-12)


def test_the_loss_is_finite_where_probabilities_are_0():
    state = state_of(Fixed(torch.tensor([[0.0, 400.0]]), torch.tensor([[0.0, 400.0]])))

    loss = defense("mart", steps=1).loss(state, torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
    grads = torch.autograd.grad(loss, [*state.model.parameters()])

    # -log q_y = 400 and -log(1.0001 - 1); the two answers do not differ.
    assert loss.item() == pytest.approx(400 - math.log(1e-4), rel=1e-3)
    assert all(g.isfinite().all() for g in grads)


def test_it_costs_what_it_says(batch: Any):
    x, y = batch
    model, made = small_network(), defense("mart", steps=4)
    with counting(model) as passes:
        made.step(state_of(model), x, y)

    assert (passes.forward / 12, passes.backward / 12) == made.passes() == (6, 6)


@pytest.mark.parametrize(
    ("fields", "line"), [({"beta": -1.0}, "beta"), ({"steps": 0}, "steps"), ({"step_size": 0.0}, "step_size")]
)
def test_a_field_out_of_range_is_refused(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput, match=f"{line}: should be greater than"):
        defense("mart", **fields)
