"""zero-grad: which entries count, and its one step by hand."""

from __future__ import annotations

import pytest
import torch
from one_step import EPS, defense, network, noise, same_loss, slope, state_of
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput


@pytest.mark.parametrize("q", [0.35, 1 / 3, 1.0])
def test_its_loss_is_that_of_the_algorithm(batch, q):
    x, y = batch
    model = network()
    start = (x + EPS * noise().uniform(x)).clamp(0, 1)
    grad = slope(model, start, y)
    # By sorting: 1/3 of the 63 steps between 64 entries is a whole number, 0.35 is not.
    bound = torch.quantile(grad.abs().flatten(1), q, dim=1).view(-1, 1, 1, 1)
    grad[grad.abs() < bound] = 0
    x_adv = (start + 2 * EPS * grad.sign()).clamp(x - EPS, x + EPS).clamp(0, 1)

    assert same_loss(defense("zero-grad", quantile=q), state_of(model), x, y, cross_entropy(model(x_adv), y))
    assert (grad == 0).flatten(1).sum(1).tolist() == [{0.35: 23, 1 / 3: 21, 1.0: 63}[q]] * len(x)


def test_with_no_entry_left_out_it_is_fast_at_from_a_start_in_the_box(batch):
    zero, fast = (
        made.loss(state_of(network()), *batch)
        for made in (
            defense("zero-grad", quantile=0, step_size=1.25),
            defense("fast-at", step_size=1.25, start_in_box=True),
        )
    )

    assert torch.equal(zero, fast)


@pytest.mark.parametrize("fields", [{"quantile": -0.1}, {"quantile": 1.1}, {"step_size": 0}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("zero-grad", **fields)
