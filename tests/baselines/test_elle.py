"""elle: its error by hand and where it is nothing, and the weight of ELLE-A along a sequence of errors."""

from __future__ import annotations

import copy
import io

import numpy as np
import pytest
import torch
from one_step import EPS, defense, network, noise, same_loss, slope, state_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput
from advbench.threat import Threat


def error(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """E, point by point."""
    source = noise()
    a, b = x + EPS * source.uniform(x), x + EPS * source.uniform(x)
    t = (source.uniform(x.flatten(1)[:, :1])[:, 0] + 1) / 2
    c = (1 - t)[:, None, None, None] * a + t[:, None, None, None] * b
    at_a, at_b, at_c = (cross_entropy(model(point), y, reduction="none") for point in (a, b, c))
    return ((1 - t) * at_a + t * at_b - at_c).square().mean()


def test_its_loss_is_that_of_the_paper(batch):
    x, y = batch
    model = network()
    x_adv = (x + EPS * slope(model, x, y).sign()).clamp(0, 1)
    e = error(model, x, y)
    state = state_of(model)

    assert same_loss(defense("elle"), state, x, y, cross_entropy(model(x_adv), y) + 1000 * e)
    assert float(state.report["nonlinearity"]) == pytest.approx(e.item(), rel=1e-9)
    assert 1000 * e.item() > 1e-3


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_loss_that_is_linear_has_no_error(batch, norm):
    x, y = batch
    last = nn.Linear(64, 3).double()
    with torch.no_grad():
        # So sure of class 0 that the loss of another label is the difference of two logits.
        last.bias.copy_(torch.tensor([1000.0, 0, 0]))
    state = state_of(nn.Sequential(nn.Flatten(), last), Threat(norm, EPS))

    defense("elle").loss(state, x, 1 + y % 2)

    assert float(state.report["nonlinearity"]) < 1e-20


def test_the_points_are_in_the_ball_and_the_third_is_between_the_others(batch):
    x, y = batch
    model, met = network(), list[Tensor]()
    model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))

    defense("elle").loss(state_of(model, Threat("L2", 0.5)), x, y)

    a, b, c = (points - x for points in met[-1].chunk(3))
    assert all((points.flatten(1).norm(dim=1) <= 0.5 * (1 + 1e-12)).all() for points in (a, b, c))
    share = ((c - a) / (b - a)).flatten(1)
    torch.testing.assert_close(share, share[:, :1].expand_as(share), rtol=1e-6, atol=1e-9)
    assert ((share[:, 0] > 0) & (share[:, 0] < 1)).all()
    assert share[:, 0].std() > 0.1


def test_the_adaptive_weight_is_set_by_an_error_out_of_the_ordinary_and_decays(batch):
    made = defense("elle", adaptive=True, weight=50, decay=0.9, sensitivity=1)
    model = network()
    last = list(model.parameters())[-2]
    state, errors, weights, weight = state_of(model), list[float](), list[float](), 0.0
    # The third error is out of the ordinary too, but two are too few to say so.
    for size in (0.5, 0.4, 1, 0.8, 2, 0.3, 0.1, 3, 1, 0.2, 0.2, 4):
        with torch.no_grad():
            last.normal_(generator=torch.Generator().manual_seed(0)).mul_(size)
        expected = weight
        made.step(state, *batch)
        report = {name: float(value) for name, value in state.report.items()}

        assert report["weight"] == pytest.approx(expected, rel=1e-12)
        now = report["nonlinearity"]
        high = len(errors) > 2 and now > np.mean(errors) + np.std(errors)
        weight = 50.0 if high else weight * 0.9
        errors.append(now)
        weights.append(weight)
    assert weights[:3] == [0, 0, 0]
    assert weights.count(50) >= 2
    assert any(0 < weight < 50 for weight in weights)


def test_the_adaptive_weight_goes_on_from_a_checkpoint(batch):
    made, state, file = defense("elle", adaptive=True, sensitivity=0, weight=10), state_of(network()), io.BytesIO()
    for size in (1, 1, 1, 1, 3):
        with torch.no_grad():
            list(state.model.parameters())[-2].mul_(size)  # the last one's error is out of the ordinary
        made.step(state, *batch)
    again = state_of(copy.deepcopy(state.model))
    torch.save(state.memory, file)
    file.seek(0)
    again.memory = torch.load(file, weights_only=True)
    again.noise.generator.set_state(state.noise.generator.get_state())

    for one in (state, again):
        for _ in range(3):
            made.step(one, *batch)

    assert state.memory == again.memory
    assert state.memory["seen"] == 8
    assert state.memory["weight"] > 0


@pytest.mark.parametrize("fields", [{"weight": -1}, {"decay": 1.1}, {"sensitivity": -1}, {"step_size": 0}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("elle", **fields)
