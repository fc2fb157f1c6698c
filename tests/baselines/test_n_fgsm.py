"""n-fgsm: its one step by hand, and how far it goes."""

from __future__ import annotations

import pytest
import torch
from one_step import EPS, defense, network, noise, same_loss, slope, state_of
from torch.nn.functional import cross_entropy

from advbench.spec import BadInput
from advbench.threat import Threat


@pytest.mark.parametrize("k", [0.0, 2.0])
def test_its_loss_is_that_of_the_algorithm(batch, k):
    x, y = batch
    model = network()
    noisy = (x + k * EPS * noise().uniform(x)).clamp(0, 1)
    x_adv = (noisy + EPS * slope(model, noisy, y).sign()).clamp(0, 1)

    assert same_loss(defense("n-fgsm", noise=k), state_of(model), x, y, cross_entropy(model(x_adv), y))
    # Without noise it is FGSM from the image; with it the perturbation leaves the ball.
    assert ((x_adv - x).abs().max() <= EPS * (1 + 1e-12)) == (k == 0)


def test_in_l2_noise_and_step_are_those_of_the_norm(batch):
    x, y = batch
    x = 0.3 + 0.4 * x  # no pixel meets the box
    model, met = network(), list[torch.Tensor]()
    model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))

    defense("n-fgsm").loss(state_of(model, Threat("L2", EPS)), x, y)

    noisy, x_adv = met
    step = slope(model, noisy, y)
    step = step / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert ((noisy - x).flatten(1).norm(dim=1) <= 2 * EPS).all()
    torch.testing.assert_close(x_adv, noisy + EPS * step, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fields", [{"noise": -1}, {"step_size": 0}, {"attack_bn": "off"}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("n-fgsm", **fields)
