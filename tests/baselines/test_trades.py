"""trades: its step against a hand-written one, the attack on the divergence, and beta 0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from one_step import EPS, defense, noise, small_network, state_of
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

from advbench.passes import counting
from advbench.spec import BadInput
from advbench.threat import Norm, Threat


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_is_the_papers_by_hand(norm: Norm, batch: Any):
    x, y = batch
    model = small_network()
    hand, state = copy.deepcopy(model), state_of(model, Threat(norm, EPS))
    drawn = noise().normal(x)

    defense("trades", beta=4.0, steps=3).step(state, x, y)

    hand.eval()
    x_adv = x + 0.001 * drawn
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        apart = kl_div(hand(x_adv).log_softmax(1), hand(x).softmax(1), reduction="sum")
        g = torch.autograd.grad(apart, x_adv)[0]
        if norm == "Linf":
            x_adv = x_adv + EPS / 4 * g.sign()
            x_adv = torch.min(torch.max(x_adv, x - EPS), x + EPS).clamp(0, 1)
        else:
            d = x_adv + EPS / 4 * g / g.flatten(1).norm(dim=1)[:, None, None, None] - x
            x_adv = (x + d * (EPS / d.flatten(1).norm(dim=1)).clamp_max(1)[:, None, None, None]).clamp(0, 1)
    hand.train()
    clean = hand(x)
    apart = kl_div(hand(x_adv.detach()).log_softmax(1), clean.softmax(1), reduction="batchmean")
    grads = torch.autograd.grad(cross_entropy(clean, y) + 4 * apart, [*hand.parameters()])
    assert apart > 0
    assert float(torch.as_tensor(state.report["divergence"]).detach()) == pytest.approx(apart.item(), abs=1e-12)
    for now, old, g in zip(model.parameters(), hand.parameters(), grads, strict=True):
        torch.testing.assert_close(now, old - 0.1 * g, rtol=0, atol=1e-12)
    for (name, buffer), other in zip(model.named_buffers(), hand.buffers(), strict=True):
        assert torch.allclose(buffer.double(), other.double(), rtol=0, atol=1e-12), name


def test_at_beta_0_it_is_standard_training(batch: Any):
    x, y = batch
    model, plain = small_network(), small_network()
    # Without batch norm, whose statistics see the adversarial images too.
    model[1], plain[1] = nn.Identity(), nn.Identity()
    for _ in range(3):
        loss = defense("trades", beta=0.0).step(state_of(model, smoothing=0.1), x, y)
        expected = defense("standard").step(state_of(plain, smoothing=0.1), x, y)

        assert torch.equal(loss, expected)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


def test_it_costs_what_it_says(batch: Any):
    x, y = batch
    model, made = small_network(), defense("trades", steps=4)
    with counting(model) as passes:
        made.step(state_of(model), x, y)

    assert (passes.forward / 12, passes.backward / 12) == made.passes() == (7, 6)


@pytest.mark.parametrize(
    ("fields", "line"), [({"beta": -1.0}, "beta"), ({"steps": 0}, "steps"), ({"step_size": 0.0}, "step_size")]
)
def test_a_field_out_of_range_is_refused(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput, match=f"{line}: should be greater than"):
        defense("trades", **fields)
