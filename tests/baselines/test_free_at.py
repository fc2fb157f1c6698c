"""free-at: its replays against algorithm 1 by hand, and its perturbation from batch to batch."""

from __future__ import annotations

import pytest
import torch
from one_step import EPS, LR, defense, network, state_of
from torch.nn.functional import cross_entropy

from advbench.passes import counting
from advbench.spec import BadInput
from advbench.threat import Threat


def test_its_replays_are_those_of_the_algorithm_and_the_next_batch_begins_where_they_end(batch):
    x, y = batch
    model, by_hand = network(), network()
    made, state = defense("free-at", replays=3), state_of(model)
    delta, losses = torch.zeros_like(x), list[float]()
    # The second batch is another, smaller one.
    for images, labels in ((x, y), (x.flip(0)[:5], y.flip(0)[:5])):
        with counting(model) as passes:
            loss = made.step(state, images, labels)

        assert (passes.forward, passes.backward) == (3 * len(images), 3 * len(images))
        losses.clear()
        for _ in range(3):
            mine = delta[: len(images)].clone().requires_grad_()
            cost = cross_entropy(by_hand((images + mine).clamp(0, 1)), labels)
            slope, *grads = torch.autograd.grad(cost, [mine, *by_hand.parameters()])
            with torch.no_grad():
                for weight, grad in zip(by_hand.parameters(), grads, strict=True):
                    weight -= LR * grad
            delta[: len(images)] = (mine.detach() + EPS * slope.sign()).clamp(-EPS, EPS)
            losses.append(cost.item())
        assert loss.item() == pytest.approx(sum(losses) / 3, rel=1e-6)
        assert torch.equal(state.memory["delta"], delta)
        for weight, expected in zip(model.parameters(), by_hand.parameters(), strict=True):
            torch.testing.assert_close(weight, expected, rtol=1e-12, atol=1e-14)


def test_its_perturbation_stays_in_the_ball_of_the_step(batch):
    made, state = defense("free-at", step_size=0.7), state_of(network())
    for eps in (0.02, 0.1, 0.05):
        state.threat = Threat("Linf", eps)
        made.step(state, *batch)

        delta = state.memory["delta"]
        assert not delta.requires_grad
        assert 0 < delta.abs().max() <= eps * (1 + 1e-12)


def test_once_is_standard_training_until_the_second_batch(batch):
    model = network()
    expected = cross_entropy(model(batch[0]), batch[1]).item()

    assert defense("free-at", replays=1).step(state_of(model), *batch).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("fields", [{"replays": 0}, {"step_size": 0}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be greater than"):
        defense("free-at", **fields)
