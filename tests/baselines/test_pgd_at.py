"""pgd-at: its loss by hand in two norms, and batch norm while it crafts."""

from __future__ import annotations

import pytest
import torch
from one_step import EPS, defense, network, noise, same_loss, slope, state_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput
from advbench.threat import Norm, Threat


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_its_loss_is_that_of_projected_ascent_by_hand(batch, norm: Norm):
    x, y = batch
    model, threat = network(), Threat(norm, EPS)
    x_adv = threat.random_start(x, noise())
    for _ in range(3):
        g = slope(model, x_adv, y)
        if norm == "Linf":
            x_adv = (x_adv + EPS / 4 * g.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
        else:
            moved = x_adv + EPS / 4 * g / g.flatten(1).norm(dim=1)[:, None, None, None] - x
            x_adv = (x + moved * (EPS / moved.flatten(1).norm(dim=1)).clamp_max(1)[:, None, None, None]).clamp(0, 1)

    assert same_loss(defense("pgd-at", steps=3), state_of(model, threat), x, y, cross_entropy(model(x_adv), y))


@pytest.mark.parametrize(("mode", "tracked"), [("train", 4), ("eval", 1)])
def test_statistics_are_moved_by_the_attack_only_in_train_mode(batch, mode: str, tracked: int):
    model = network(norm=True)

    defense("pgd-at", steps=3, attack_bn=mode).loss(state_of(model), *batch)

    assert model.get_buffer("1.num_batches_tracked") == tracked


def test_label_smoothing_is_for_the_weights_alone(batch):
    met = list[Tensor]()
    for smoothing in (0, 0.4):
        state = state_of(network(), smoothing=smoothing)
        state.model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))
        defense("pgd-at", steps=2).loss(state, *batch)
        assert state.smoothed

    assert torch.equal(torch.stack(met[:3]), torch.stack(met[3:]))


@pytest.mark.parametrize("fields", [{"steps": 0}, {"step_size": 0}, {"attack_bn": "off"}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("pgd-at", **fields)
