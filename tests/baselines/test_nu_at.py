"""nu-at: its step by hand with the norm from singular values, and its schedule."""

from __future__ import annotations

import sys

import pytest
import torch
from one_step import EPS, close, defense, gradients, network, noise, same_loss, state_of
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput


def nuclear(matrix: torch.Tensor) -> torch.Tensor:
    """By the eigenvalues of the small Gram matrix, whose roots are the singular values."""
    return torch.linalg.eigvalsh(matrix.T @ matrix).clamp_min(0).sqrt().sum()


@pytest.mark.parametrize(
    ("step", "progress", "climbing", "weight"), [(0, 0.45, 0, 2.25), (1, 0.45, 2.25, 2.25), (1, 0.95, 4.5, 4.5)]
)
def test_its_loss_is_that_of_the_authors(batch, step, progress, climbing, weight):
    x, y = batch
    model = network()
    clean = model(x)
    start = (x + EPS / 2 * noise().uniform(x).sign()).clamp(0, 1).requires_grad_()
    logits = model(start)
    climbed = cross_entropy(logits, y) + climbing * nuclear(logits - clean.detach()) / 12
    slope = torch.autograd.grad(climbed, start)[0]
    x_adv = (start + EPS * slope.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).detach()
    moved = nuclear(model(x_adv) - clean) / 12
    state = state_of(model, step=step, progress=progress)

    assert same_loss(defense("nu-at"), state, x, y, cross_entropy(model(x), y) + weight * moved)
    assert float(state.report["nuclear"]) == pytest.approx(moved.item(), rel=1e-9)


def test_training_begins_as_standard_training(batch):
    model = network()
    loss = defense("nu-at").loss(state_of(model, progress=0.0, step=1), *batch)

    assert close(gradients(loss, model), gradients(cross_entropy(model(batch[0]), batch[1]), model), 1e-12)


def test_a_ball_of_no_size_has_a_finite_gradient(batch):
    model = network()
    state = state_of(model, progress=0.5)
    state.threat = state.threat.scaled(0)

    loss = defense("nu-at").loss(state, *batch)

    assert state.report["nuclear"] == 0
    assert gradients(loss, model).isfinite().all()


def test_logits_that_are_no_numbers_make_a_loss_that_is_none(batch):
    model = network()
    with torch.no_grad():
        list(model.parameters())[-1].fill_(torch.nan)

    assert defense("nu-at").loss(state_of(model, progress=0.5, step=1), *batch).isnan()


def test_one_entry_that_is_no_number_makes_the_norm_none():
    module = sys.modules[type(defense("nu-at")).__module__]
    matrix = torch.tensor([[3.0, 0.0], [0.0, 4.0]])

    assert module.nuclear(matrix) == 7
    for bad in (torch.nan, torch.inf):
        matrix[0, 1] = bad
        assert module.nuclear(matrix).isnan()


@pytest.mark.parametrize("fields", [{"weight": -1}, {"ramp": 0}, {"noise": -1}, {"step_size": 0}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("nu-at", **fields)
