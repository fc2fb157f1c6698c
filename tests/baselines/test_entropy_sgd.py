"""entropy-sgd: its Langevin steps against hand-written ones, and what a single one comes to."""

from __future__ import annotations

import copy
import math
from functools import partial
from typing import Any

import one_step
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from advbench.attacks.pgd import ascend
from advbench.passes import counting
from advbench.spec import BadInput

LR = 0.3
defense = partial(one_step.defense, "entropy-sgd")
state_of = partial(one_step.state_of, lr=LR)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Softplus(), nn.Linear(6, 3)).double()


def test_a_step_is_the_papers_by_hand(batch: Any):
    """Three Langevin steps with noise and a strong pull; the base attacks anew at each of the three places."""
    x, y = batch
    model, noise = network(), one_step.noise()
    hand, state = copy.deepcopy(model), state_of(model)
    made = defense(inner_steps=3, inner_lr=0.5, gamma=0.4, noise=0.01, alpha=0.75, base={"name": "pgd-at", "steps": 2})

    loss = made.step(state, x, y)

    weights = [*hand.parameters()]
    centre = [weight.detach().clone() for weight in weights]
    means, losses = [weight.clone() for weight in centre], list[float]()
    for _ in range(3):
        start = state.threat.random_start(x, noise)
        x_adv = ascend(hand, x, y, state.threat, start=start, steps=2, step_size=0.1 / 4)
        adversarial = cross_entropy(hand(x_adv), y)
        losses.append(adversarial.item())
        slopes = torch.autograd.grad(adversarial, weights)
        with torch.no_grad():
            for i, weight in enumerate(weights):
                drawn = torch.empty_like(weight).normal_(generator=noise.generator)
                weight -= 0.5 * (slopes[i] - 0.4 * (centre[i] - weight))
                weight += math.sqrt(0.5) * 0.01 * drawn
                means[i] = 0.25 * means[i] + 0.75 * weight
    for now, place, mean in zip(model.parameters(), centre, means, strict=True):
        torch.testing.assert_close(now, place - LR * (place - mean), rtol=0, atol=1e-12)
    assert float(loss) == pytest.approx(sum(losses) / 3, abs=1e-6)
    away = math.sqrt(sum(float((place - mean).square().sum()) for place, mean in zip(centre, means, strict=True)))
    assert float(state.report["away"]) == pytest.approx(away, rel=1e-9)


def test_a_single_step_without_noise_is_gradient_descent_of_a_shorter_step(batch: Any):
    """L = 1: w' = w - lr' g, so mu = w - alpha lr' g, and the pull to w is 0 at w."""
    x, y = batch
    model = network()
    expected = torch.autograd.grad(cross_entropy(model(x), y), [*model.parameters()])
    before = [weight.detach().clone() for weight in model.parameters()]

    defense(inner_steps=1, noise=0.0, gamma=0.9, base={"name": "standard"}).step(state_of(model), x, y)

    for now, old, g in zip(model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(now, old - LR * 0.75 * 0.1 * g, rtol=0, atol=1e-14)


def test_the_weights_come_back_bit_for_bit_before_the_optimizer_steps(batch: Any):
    model = network().float()
    before = copy.deepcopy(model)
    state = state_of(model)
    state.optimizer.param_groups[0]["lr"] = 0.0

    defense(inner_steps=3, noise=1.0).step(state, batch[0].float(), batch[1])

    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))
    assert float(state.report["away"]) > 1


def test_the_noise_has_the_papers_spread(batch: Any):
    """The gradient of a frozen answer is 0, so what is left is sqrt(lr') * noise * N(0, 1)."""
    layer = nn.Linear(64, 2000)
    nn.init.zeros_(layer.weight)
    state = state_of(nn.Sequential(nn.Flatten(), layer).double())
    made = defense(inner_steps=1, inner_lr=0.04, gamma=0.0, noise=3.0, alpha=1.0, base={"name": "standard"})

    made.step(state, torch.zeros(2, 1, 8, 8).double(), torch.tensor([0, 1]))

    moved = layer.weight.detach() / LR
    assert moved.std().item() == pytest.approx(0.2 * 3.0, rel=0.01)
    assert abs(moved.mean().item()) < 0.01


def test_it_costs_what_it_says(batch: Any):
    x, y = batch
    for base in ("standard", "pgd-at", "trades"):
        made, model = defense(inner_steps=3, base={"name": base}), network()
        with counting(model) as passes:
            made.step(state_of(model), x, y)
        assert (passes.forward / 12, passes.backward / 12) == made.passes(), base


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"inner_steps": 0}, "inner_steps: should be greater"),
        ({"inner_lr": 0.0}, "inner_lr: should be greater"),
        ({"gamma": -1.0}, "gamma: should be greater"),
        ({"noise": -1.0}, "noise: should be greater"),
        ({"alpha": 0.0}, "alpha: should be greater"),
        ({"alpha": 1.5}, "alpha: should be less"),
    ],
)
def test_a_field_out_of_range_is_refused(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput, match=line):
        defense(**fields)
