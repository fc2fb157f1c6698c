"""How the substitute is made and fitted, and the steps of the attack on it, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import noise
from torch import Tensor, nn

from advbench.attacks.sst import SST
from advbench.seeds import generator
from advbench.threat import Threat

SMALL = SST(noise=0, epochs=2, width=3, hidden=5, batch=8)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


class Target(nn.Module):
    """Four logits of the mean and the extremes of an image."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return torch.stack([flat.mean(1), -flat.mean(1), flat.amax(1), flat.amin(1)], 1)


@pytest.mark.parametrize(("height", "width", "features"), [(8, 6, 12), (5, 5, 4), (1, 7, 7), (2, 2, 1)])
def test_the_network_has_three_convolutions_and_two_linear_layers(height: int, width: int, features: int) -> None:
    network = SMALL._network(images(1, 2, height, width), 4, 0)

    shapes = [tuple(value.shape) for value in network.parameters()]
    convolutions = [(3, 2, 3, 3), (3,), *[(3, 3, 3, 3), (3,)] * 2]
    assert shapes == [*convolutions, (5, 3 * features), (5,), (4, 5), (4,)]
    assert network(images(6, 2, height, width)).shape == (6, 4)


def test_it_is_fitted_by_adam_to_the_squared_error_and_then_at_a_tenth_of_the_rate() -> None:
    x, target = images(8, 1, 4, 4), Target()
    expected = SMALL._network(x, 4, 9)
    weights = list(expected.parameters())
    for lr in (1e-3, 1e-4):
        optimizer = torch.optim.Adam(weights, lr)
        for _ in range(2):
            loss = (expected(x) - target(x)).square().mean()
            for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = slope
            optimizer.step()

    found = SMALL.substitute(target, x, 9)

    # One batch holds all images; their order is drawn, and sums are rounded by it.
    for mine, theirs in zip(found.parameters(), weights, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=0, atol=2e-6)
    assert not any(weight.requires_grad for weight in found.parameters())
    assert not any(module.training for module in found.modules())


def test_levels_of_noise_go_by_a_twentieth_from_none_to_all_of_it() -> None:
    x, draws = torch.full((1, 1, 40, 40), 0.5), generator("cpu", 0, "levels")
    attack, levels, means = SST(noise=0.4), set[int](), list[float]()
    for _ in range(300):
        way = attack._noisy(x, draws) - x
        level = float(way.abs().max()) / 0.4 * 20
        levels.add(round(level))
        assert abs(level - round(level)) < 0.15
        means.append(float(way.mean()))

    # U(-a, a) of 1,600 pixels reaches 0.99 a, and no level is missed in 300 draws, but once in 100,000 times.
    assert levels == set(range(21))
    assert max(abs(mean) for mean in means) < 5 * 0.4 / (3 * 1600) ** 0.5
    bright = torch.stack([SST()._noisy(x, draws) for _ in range(40)])
    assert (bright.min(), bright.max()) == (0, 1)


def test_two_steps_of_it_are_a_quarter_and_an_eighth_of_the_radius_along_the_margin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plane: Any = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)).double().requires_grad_(False)
    plane[1].weight.copy_(weight)
    monkeypatch.setattr(SST, "substitute", lambda self, model, x, seed: plane)
    x, y, threat = 0.4 + 0.2 * images(6, 1, 3, 4).double(), torch.arange(6) % 4, Threat("Linf", 0.1)
    expected = threat.random_start(x, noise(6))
    for size in (0.025, 0.0125):
        best = plane(expected).scatter(1, y[:, None], -torch.inf).argmax(1)
        expected = threat.project(expected + size * (weight[best] - weight[y]).sign().view_as(x), x)

    found = SST(steps=2).run(plane, x, y, threat, noise(6))

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
