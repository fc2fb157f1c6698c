"""Interval bounds: they hold every sampled point, and are the true range where that is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.bounds import Box, differences, layers, through, worst_case
from advbench.models.base import Normalize
from advbench.models.digits_cnn import DigitsCnn
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.models.mnist_cnn import MnistCnn
from advbench.spec import BadInput

SHAPE = (1, 8, 8)
CLASSES = 4


def interval(model: nn.Module, x: Tensor, low: Tensor, high: Tensor) -> Box:
    """The box of the logits where pixels lie between low and high."""
    box = Box.between(x, low, high)
    for layer in layers(model):
        box = through(layer, box)
    return box


def everything() -> nn.Sequential:
    """One of each layer that is known."""
    return nn.Sequential(
        Normalize((0.4,), (0.3,)),
        nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1, padding_mode="reflect", bias=False), nn.BatchNorm2d(6)),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1, groups=2),
        nn.AvgPool2d(2),
        nn.Softplus(),
        nn.MaxPool2d(2, stride=1),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5, bias=False),
        nn.BatchNorm1d(5, affine=False),
        nn.Tanh(),
        nn.Linear(5, CLASSES),
        nn.Sigmoid(),
        nn.ReLU6(),
        nn.Identity(),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits-cnn": lambda: DigitsCnn().build(SHAPE, CLASSES),
    "mnist-cnn": lambda: MnistCnn().build(SHAPE, CLASSES),
    "mlp": lambda: Mlp(hidden=(20, 20)).build(SHAPE, CLASSES),
    "linear": lambda: Linear().build(SHAPE, CLASSES),
    "everything": everything,
}


@pytest.fixture(params=NETWORKS)
def network(request) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[request.param]().double()
    with torch.no_grad():
        for _ in range(3):
            model.train()(images(16, seed=9))  # statistics that are not those of any batch below
        for weight in model.parameters():
            weight *= 1.5
    return model.eval()


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def around(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)


@torch.no_grad()
def test_10_000_sampled_points_lie_inside(network):
    x = images(2)
    low, high = around(x, 0.1)
    y = torch.tensor([1, 3])
    box = interval(network, x, low, high)
    _, worst = worst_case(network, x, y, low, high)
    draw = torch.Generator().manual_seed(1)

    for i in range(2):
        share = torch.rand(5_000, *SHAPE, generator=draw, dtype=torch.float64)
        share[2_500:] = share[2_500:].round()  # corners
        logits = network(low[i] + share * (high[i] - low[i]))

        assert (logits >= box.low[i] - 1e-12).all()
        assert (logits <= box.high[i] + 1e-12).all()
        assert (logits - logits[:, y[i], None] <= worst[i] + 1e-12).all()


def test_at_radius_0_they_are_the_clean_logits(network):
    x, y = images(6), torch.arange(6) % CLASSES

    box = interval(network, x, x, x)
    clean, worst = worst_case(network, x, y, x, x)

    expected = network(x)
    for found in (box.clean, clean):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(box.low, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(box.high, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(worst, expected - expected.gather(1, y[:, None]), rtol=0, atol=1e-12)
    # Both ends of the differences, also where the last layer is none that can be elided.
    inside, *path = Box.between(x, x, x), *layers(network)
    for layer in path[:-1]:
        inside = through(layer, inside)
    ends = differences(path[-1], inside, y)
    for found in (ends.low, ends.high):
        torch.testing.assert_close(found, worst, rtol=0, atol=1e-12)


def test_of_a_linear_model_they_are_the_range_and_the_worst_margin_is_reached():
    torch.manual_seed(0)
    model: Any = Linear().build(SHAPE, CLASSES).double()
    x, y, eps, weight = images(5), torch.arange(5) % CLASSES, 0.07, model[1].weight
    low, high = around(x, eps)

    box = interval(model, x, low, high)
    _, worst = worst_case(model, x, y, low, high)

    for c in range(CLASSES):
        best = torch.where(weight[c] > 0, high.flatten(1), low.flatten(1)).view_as(x)
        least = torch.where(weight[c] > 0, low.flatten(1), high.flatten(1)).view_as(x)
        torch.testing.assert_close(box.high[:, c], model(best)[:, c])
        torch.testing.assert_close(box.low[:, c], model(least)[:, c])
        way = (weight[c] - weight[y]) > 0
        attack = torch.where(way, high.flatten(1), low.flatten(1)).view_as(x)
        reached = model(attack)
        torch.testing.assert_close(worst[:, c], reached[:, c] - reached.gather(1, y[:, None]).squeeze(1))


def test_of_a_network_without_negative_weights_they_are_the_values_at_two_corners():
    torch.manual_seed(0)
    model = nn.Sequential(*everything()[1:]).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()
    x = images(3)
    low, high = around(x, 0.2)

    box = interval(model, x, low, high)

    torch.testing.assert_close(box.low, model(low), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(box.high, model(high), rtol=1e-10, atol=1e-12)


def test_elision_is_tighter_than_the_difference_of_two_logits():
    torch.manual_seed(0)
    model, x, y = DigitsCnn().build(SHAPE, CLASSES).double(), images(4), torch.arange(4)
    box = interval(model, x, *around(x, 0.1))
    _, worst = worst_case(model, x, y, *around(x, 0.1))

    loose = box.high - box.low.gather(1, y[:, None])
    others = torch.ones_like(worst).scatter(1, y[:, None], 0).bool()
    assert (worst[others] < loose[others]).all()
    assert (worst.gather(1, y[:, None]) == 0).all()


def test_in_train_mode_batch_norm_takes_the_clean_statistics_and_moves_once():
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(108, CLASSES)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.5, -2.0, 0.5]))  # a negative scale turns the box over
    x = images(8)
    inner = model[0](x)
    mean, variance = inner.mean((0, 2, 3), keepdim=True), inner.var((0, 2, 3), keepdim=True, correction=0)

    box = interval(model.train(), x, *around(x, 0.05))

    with torch.no_grad():
        for seed in range(50):
            share = images(8, seed=seed + 1)
            low, high = around(x, 0.05)
            point = (model[0](low + share * (high - low)) - mean) / (variance + 1e-5).sqrt()
            logits = model[3](model[2](point * model[1].weight.view(1, 3, 1, 1) + model[1].bias.view(1, 3, 1, 1)))
            assert (logits >= box.low).all()
            assert (logits <= box.high).all()
    assert model[1].num_batches_tracked == 1
    torch.testing.assert_close(box.clean, model(x))
    point = interval(model, x, x, x)
    torch.testing.assert_close(point.low, point.clean, rtol=0, atol=1e-12)
    torch.testing.assert_close(point.high, point.clean, rtol=0, atol=1e-12)


def test_dropout_in_train_mode_drops_the_same_of_points_and_bounds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, CLASSES)).double().train()
    x = images(4)

    box = interval(model, x, x, x)

    torch.testing.assert_close(box.low, box.clean, rtol=0, atol=1e-12)
    assert (box.clean - model.eval()(x)).abs().max() > 0.01


class Shifted(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) - input.flatten(1)[:, :CLASSES]


def hooked() -> nn.Module:
    """What it does is not what its class says."""
    layer = nn.ReLU()
    layer.register_forward_hook(lambda module, args, output: -output)
    return layer


class Scaled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return -super().forward(input)


def test_passes_may_be_counted_on_the_network_itself():
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda module, args, output: None)

    assert layers(model) == [model]


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.GELU()), "layer 1 is a GELU,"),
        (Shifted(nn.Flatten(), nn.Linear(64, CLASSES)), "the network is a Shifted,"),
        (nn.Sequential(nn.Flatten(), Scaled(64, CLASSES)), "layer 1 is a Scaled,"),
        (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False)), "layer 0 is a BatchNorm2d without running stat"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "the network is a ParametrizedLinear,"),
        (nn.Sequential(nn.utils.spectral_norm(nn.Linear(2, 2))), "layer 0 has hooks, or weights computed"),
        (nn.utils.spectral_norm(nn.Linear(2, 2)), "the network has hooks, or weights computed"),
        (nn.Sequential(nn.ReLU(), hooked()), "layer 1 has hooks, or weights computed"),
    ],
)
def test_what_is_not_known_by_its_very_class_is_refused(model, said):
    with pytest.raises(BadInput, match=f"^interval bounds: {said}") as caught:
        layers(model)

    assert len(caught.value.lines) == 1
