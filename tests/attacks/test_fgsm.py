"""FGSM: one step of the whole radius from the example itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import input_gradient
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
NOISE = BlockNoise(torch.device("cpu"), 0, 8, torch.arange(8))
Y = torch.arange(8) % 3


def net(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(8, 12), (8, 3, 2, 2)])
@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_steps_the_whole_radius_along_the_steepest_direction(norm, shape, dtype):
    x = torch.full(shape, 0.5, dtype=dtype)
    threat = Threat(norm, 0.1)
    model = net(dtype)

    x_adv = FGSM().run(model, x, Y, threat, NOISE)

    grad = input_gradient(model, x, Y)
    unit = threat.steepest_ascent(grad)
    torch.testing.assert_close(x_adv - x, 0.1 * unit, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", NORMS)
def test_fgsm_is_clipped_to_the_box(norm):
    x = torch.ones(8, 12)
    threat = Threat(norm, 0.1)

    x_adv = FGSM().run(net(torch.float32), x, Y, threat, NOISE)

    assert x_adv.max() <= 1
    assert threat.contains(x_adv, x).all()
    assert (x_adv < 1).any()


def test_fgsm_draws_no_random_number_and_leaves_no_gradient():
    model, x = net(torch.float32), torch.full((8, 12), 0.5)
    noise = BlockNoise(torch.device("cpu"), 0, 8, torch.arange(8))
    state = noise.generator.get_state()

    FGSM().run(model, x, Y, Threat("Linf", 0.1), noise)

    assert torch.equal(noise.generator.get_state(), state)
    assert all(p.grad is None for p in model.parameters())
