"""sam-at: the step against a hand-written one, and rho 0."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from one_step import EPS, defense, noise, small_network, state_of
from torch import nn
from torch.nn.functional import cross_entropy

from advbench.attacks.pgd import ascend
from advbench.passes import counting
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

LR = 0.3


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_is_the_papers_by_hand(norm: Norm, batch: Any):
    x, y = batch
    model = small_network()
    hand, threat = copy.deepcopy(model), Threat(norm, EPS)
    state = state_of(model, threat, lr=LR)
    start = threat.random_start(x, noise())
    x_adv = ascend(hand.eval(), x, y, threat, start=start, steps=3, step_size=EPS / 4)

    defense("sam-at", rho=0.2, base={"name": "pgd-at", "steps": 3, "attack_bn": "eval"}).step(state, x, y)

    hand.train()
    weights = [*hand.parameters()]
    before = [weight.detach().clone() for weight in weights]
    flat = cross_entropy(hand(x_adv), y)
    slopes = torch.autograd.grad(flat, weights)
    length = torch.cat([g.flatten() for g in slopes]).norm()
    with torch.no_grad():
        for weight, g in zip(weights, slopes, strict=True):
            weight += 0.2 * g / length
    worst = cross_entropy(hand(x_adv), y)
    # To first order the loss rises by rho times the length of its gradient.
    assert worst.item() - flat.item() == pytest.approx(0.2 * length.item(), rel=0.3)
    # A step adds its losses up in float32.
    assert float(state.report["rise"]) == pytest.approx(worst.item() - flat.item(), abs=1e-6)
    for now, old, g in zip(model.parameters(), before, torch.autograd.grad(worst, weights), strict=True):
        torch.testing.assert_close(now, old - LR * g, rtol=0, atol=1e-12)


@pytest.mark.parametrize("base", ["standard", "pgd-at", "trades", "mart", "consistency"])
def test_with_rho_0_it_is_its_base_and_costs_what_it_says(base: str, batch: Any):
    x, y = batch
    model, plain = small_network(), small_network()
    made, inside, state, alone = (
        defense("sam-at", rho=0.0, base={"name": base}),
        defense(base),
        state_of(model, lr=LR),
        state_of(plain, lr=LR),
    )

    with counting(model) as passes:
        first = made.step(state, x, y)

    assert (passes.forward / 12, passes.backward / 12) == made.passes()
    assert torch.equal(first, inside.step(alone, x, y))
    assert torch.equal(made.step(state, x, y), inside.step(alone, x, y))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("scale", [1e-30, 0.0])
def test_the_length_is_rho_however_small_the_gradient_is(scale: float):
    weights = [nn.Parameter(torch.zeros(3, 2)), nn.Parameter(torch.zeros(2))]
    for weight in weights:
        weight.grad = scale * torch.arange(1.0, 1 + weight.numel()).view_as(weight)
    with torch.no_grad():
        defense("sam-at", rho=4.0).perturb(weights)

    length = torch.cat([weight.flatten() for weight in weights]).norm().item()
    assert length == pytest.approx(4.0 if scale else 0.0, rel=1e-6)


def test_a_negative_radius_is_refused():
    with pytest.raises(BadInput, match="rho: should be greater than or equal to 0"):
        defense("sam-at", rho=-0.05)
