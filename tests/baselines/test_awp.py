"""awp: where the weights are moved, what that does to the step, and that nothing of it is left."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from one_step import EPS, defense, noise, small_network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench.attacks.pgd import ascend
from advbench.defense import TrainState
from advbench.passes import counting
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

LR = 0.3


def state_of(model: nn.Module, norm: Norm = "Linf", lr: float = LR) -> TrainState:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4)
    return TrainState(model.train(), optimizer, Threat(norm, EPS), noise())


def contents(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_step_is_the_papers_by_hand(norm: Norm, batch: Any):
    x, y = batch
    model, gamma = small_network(), 0.05
    state, hand = state_of(model, norm), copy.deepcopy(model).train()
    threat = Threat(norm, EPS)
    start = threat.random_start(x, noise())
    x_adv = ascend(hand.eval(), x, y, threat, start=start, steps=3, step_size=EPS / 4)

    loss = defense("awp", gamma=gamma, base={"name": "pgd-at", "steps": 3, "attack_bn": "eval"}).step(state, x, y)

    hand.train()
    layers = [p for p in hand.parameters() if p.dim() > 1]
    before = [p.detach().clone() for p in hand.parameters()]
    flat = cross_entropy(hand(x_adv), y)
    with torch.no_grad():
        for layer, g in zip(layers, torch.autograd.grad(flat, layers), strict=True):
            layer += gamma * torch.linalg.vector_norm(layer) / torch.linalg.vector_norm(g) * g
    worst = cross_entropy(hand(x_adv), y)
    grads = torch.autograd.grad(worst, [*hand.parameters()])
    # A step adds its losses up in float32.
    assert float(loss) == pytest.approx(worst.item(), abs=1e-6)
    assert float(state.report["rise"]) == pytest.approx(worst.item() - flat.item(), abs=1e-6)
    assert worst > flat
    for now, old, g in zip(model.parameters(), before, grads, strict=True):
        torch.testing.assert_close(now, old - LR * (g + 5e-4 * old), rtol=0, atol=1e-12)


def test_the_weights_come_back_bit_for_bit_and_statistics_are_those_of_one_pass(batch: Any):
    model = small_network().float()
    state, plain = state_of(model, lr=0.0), copy.deepcopy(model)
    x, y = batch[0].float(), batch[1]
    moved = list[list[Tensor]]()
    model.register_forward_pre_hook(lambda *_: moved.append([p.detach().clone() for p in model.parameters()]))
    start = [p.detach().clone() for p in model.parameters()]

    defense("awp", gamma=0.02).step(state, x, y)
    defense("pgd-at").step(state_of(plain, lr=0.0), x, y)

    assert contents(model).keys() == contents(plain).keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in contents(model).items())
    assert all(torch.equal(a, b) for place in moved[:-1] for a, b in zip(place, start, strict=True))
    for perturbed, weight in zip(moved[-1], start, strict=True):
        length = torch.linalg.vector_norm(perturbed - weight)
        if weight.dim() > 1:
            assert length == pytest.approx(0.02 * torch.linalg.vector_norm(weight).item(), rel=1e-4)
        else:
            assert length == 0


@pytest.mark.parametrize("scale", [1.0, 1e-30, 0.0])
def test_the_length_is_a_share_of_the_weight_s_however_small_the_gradient_is(scale: float):
    weights = [nn.Parameter(torch.full((3, 2), 2.0)), nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2, 2))]
    for weight in weights[:2]:
        weight.grad = scale * torch.arange(1.0, 1 + weight.numel()).view_as(weight)
    before = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        defense("awp", gamma=0.5).perturb(weights)  # type: ignore[attr-defined]

    moved = weights[0].detach() - before[0]
    way = torch.arange(1.0, 7).view(3, 2) / 91**0.5
    torch.testing.assert_close(moved, 0.5 * 24**0.5 * way * bool(scale))
    # Neither a bias nor a layer that the loss does not reach.
    assert all(torch.equal(weight, old) for weight, old in zip(weights[1:], before[1:], strict=True))


BASES = [
    "standard",
    "fast-at",
    "pgd-at",
    "dynamic-at",
    "fast-bat",
    "trades",
    "mart",
    "ibp",
    "input-gradient-regularisation",
]


@pytest.mark.parametrize("base", BASES)
def test_without_a_perturbation_it_is_its_base(base: str, batch: Any):
    x, y = batch
    model, plain = small_network(), small_network()
    inside, state, alone = defense(base), state_of(model), state_of(plain)
    made = defense("awp", gamma=0.0, base={"name": base})
    assert torch.equal(made.step(state, x, y), inside.step(alone, x, y))
    with counting(model) as passes:
        loss = made.step(state, x, y)
    with counting(plain) as fewer:
        expected = inside.step(alone, x, y)

    assert torch.equal(loss, expected)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in contents(model).items())
    assert torch.equal(state.noise.generator.get_state(), alone.noise.generator.get_state())
    assert state.report["rise"] == 0
    if base == "fast-bat":
        # Its gradient to the weights goes through its attack, which is made again.
        assert (passes.forward - fewer.forward, passes.backward - fewer.backward) == (24, 36)
    else:
        more = tuple(12 * passes for passes in inside.weight_passes())
        assert (passes.forward - fewer.forward, passes.backward - fewer.backward) == more


def test_it_costs_what_it_says_around_each_base(batch: Any):
    x, y = batch
    for base in ("standard", "fast-at", "pgd-at", "trades", "mart", "ibp", "input-gradient-regularisation"):
        made, model = defense("awp", base={"name": base}), small_network()
        with counting(model) as passes:
            made.step(state_of(model), x, y)
        assert (passes.forward / 12, passes.backward / 12) == made.passes(), base


def test_in_pieces_it_is_the_whole_batch(batch: Any):
    """Without batch norm, and with an attack that draws nothing, pieces change no sum."""
    x, y = batch
    torch.manual_seed(0)
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 3)).double()
    parts = copy.deepcopy(whole)
    made, pieces = defense("awp", base={"name": "dynamic-at"}), state_of(parts)
    pieces.micro = 5

    loss = made.step(state_of(whole), x, y)

    assert torch.allclose(made.step(pieces, x, y), loss, rtol=0, atol=1e-6)
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [-0.01, 1.5, "0.01"])
def test_a_share_that_is_none_is_refused(value: Any):
    with pytest.raises(BadInput, match="gamma: should be"):
        defense("awp", gamma=value)
