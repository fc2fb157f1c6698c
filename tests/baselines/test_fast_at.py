"""fast-at: its loss by hand, from a start in the box and from one that may lie outside."""

from __future__ import annotations

import pytest
from one_step import EPS, defense, network, noise, same_loss, slope, state_of
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput


@pytest.mark.parametrize("box", [False, True])
@pytest.mark.parametrize("step", [1.25, 0.5])
def test_its_loss_is_that_of_the_algorithm(batch, step: float, box: bool):
    x, y = batch
    x = x.round()  # black and white: every start leaves the box
    model = network()
    start = x + EPS * noise().uniform(x)
    start = start.clamp(0, 1) if box else start
    x_adv = (start + step * EPS * slope(model, start, y).sign()).clamp(x - EPS, x + EPS).clamp(0, 1)
    made = defense("fast-at", step_size=step, start_in_box=box)

    assert same_loss(made, state_of(model), x, y, cross_entropy(model(x_adv), y))


@pytest.mark.parametrize(("mode", "tracked"), [("train", 2), ("eval", 1)])
def test_statistics_are_moved_by_the_attack_only_in_train_mode(batch, mode: str, tracked: int):
    model = network(norm=True)

    defense("fast-at", attack_bn=mode).loss(state_of(model), *batch)

    assert model.get_buffer("1.num_batches_tracked") == tracked


@pytest.mark.parametrize("fields", [{"step_size": 0}, {"attack_bn": "off"}, {"start_in_box": "perhaps"}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("fast-at", **fields)
