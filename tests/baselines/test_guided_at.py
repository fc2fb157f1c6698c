"""guided-at: its step by hand, with and without the guide, and what it is without a weight."""

from __future__ import annotations

import pytest
import torch
from one_step import EPS, close, defense, gradients, network, noise, same_loss, state_of
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput


@pytest.mark.parametrize(
    ("step", "progress", "guide", "climbing", "weight"),
    [
        (0, 0.0, "alternate", 0, 10),
        (1, 0.85, "alternate", 10, 10),
        (3, 0.86, "alternate", 40, 40),
        (0, 0.5, "always", 10, 10),
    ],
)
def test_its_loss_is_that_of_the_authors(batch, step, progress, guide, climbing, weight):
    x, y = batch
    model = network()
    clean = model(x).softmax(1)
    start = (x + EPS / 2 * noise().uniform(x).sign()).clamp(0, 1).requires_grad_()
    logits = model(start)
    climbed = cross_entropy(logits, y) + climbing * (logits.softmax(1) - clean.detach()).square().sum(1).mean()
    slope = torch.autograd.grad(climbed, start)[0]
    x_adv = (start + EPS * slope.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).detach()
    distance = (model(x_adv).softmax(1) - clean).square().sum(1).mean()
    expected = cross_entropy(model(x), y) + weight * distance
    state = state_of(model, step=step, progress=progress)

    assert same_loss(defense("guided-at", guide=guide), state, x, y, expected)
    assert float(state.report["distance"]) == pytest.approx(distance.item(), rel=1e-9)


def test_the_guide_changes_the_attack(batch):
    made = defense("guided-at", weight=100)
    plain, guided = (made.loss(state_of(network(), step=step), *batch) for step in (0, 1))

    assert guided.item() != plain.item()


def test_without_a_weight_it_is_standard_training(batch):
    model = network()
    loss = defense("guided-at", weight=0).loss(state_of(model, step=1), *batch)

    assert close(gradients(loss, model), gradients(cross_entropy(model(batch[0]), batch[1]), model), 1e-12)


def test_the_attack_is_in_eval_mode_and_the_clean_pass_is_made_once(batch):
    model = network(norm=True)

    defense("guided-at").loss(state_of(model), *batch)

    assert model.get_buffer("1.num_batches_tracked") == 2
    assert model.training


@pytest.mark.parametrize("fields", [{"weight": -1}, {"factor_from": 1.5}, {"guide": "never"}, {"step_size": 0}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("guided-at", **fields)
