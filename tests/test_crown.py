"""CROWN: bounds that hold, that are never looser than intervals, and that are exact where the truth is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import bounds, crown
from advbench.models.base import Normalize
from advbench.models.digits_cnn import DigitsCnn
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.seeds import Stream, generator
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

SHAPE = (1, 6, 6)
CLASSES = 3
EPS: dict[Norm, float] = {"Linf": 0.05, "L2": 0.25, "L1": 0.8}


def mixed() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(Normalize((0.4,), (0.3,)), nn.Conv2d(1, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5)),
        nn.ReLU(inplace=True),
        nn.Conv2d(5, 4, 2, groups=1, bias=False),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4, 6),
        nn.BatchNorm1d(6),
        nn.ReLU(),
        nn.ReLU(),
        nn.Linear(6, CLASSES),
        nn.ReLU(),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "digits-cnn": lambda: DigitsCnn().build(SHAPE, CLASSES),
    "mlp": lambda: Mlp(hidden=(16, 16, 16)).build(SHAPE, CLASSES),
    "mixed": mixed,
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    model = NETWORKS[request.param]().double()
    with torch.no_grad():
        for _ in range(3):
            model.train()(images(16, seed=9))
        for weight in model.parameters():
            weight *= 1.5
    return model.eval().requires_grad_(False)


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(n: int) -> Tensor:
    return torch.arange(n) % CLASSES


@pytest.mark.parametrize("norm", EPS)
def test_10_000_points_of_the_ball_lie_below_and_intervals_above(network: nn.Module, norm: Norm):
    x, y, threat = images(2), labels(2), Threat(norm, EPS[norm])

    worst = crown.worst_case(network, x, y, threat)

    for i in range(2):
        near = x[i].expand(2_500, *SHAPE)
        inside = threat.random_start(near, Stream(generator("cpu", i)))
        slopes = torch.randn(2_500, *SHAPE, generator=generator("cpu", 7 + i), dtype=torch.float64)
        for points in (inside, threat.farthest(near, slopes)):  # and points at its edge
            logits = network(points)
            assert (logits - logits[:, y[i], None] <= worst[i] + 1e-12).all()
    low, high = (x - threat.eps).clamp(0, 1), (x + threat.eps).clamp(0, 1)
    intervals = bounds.worst_case(network, x, y, low, high)[1]
    others = torch.ones_like(worst).scatter(1, y[:, None], 0).bool()
    assert (worst <= intervals + 1e-12).all()
    assert (worst[others] < intervals[others]).any()
    assert (worst[~others].abs() < 1e-12).all()


@pytest.mark.parametrize("norm", EPS)
def test_of_a_linear_model_they_are_reached(norm: Norm):
    torch.manual_seed(0)
    model: Any = Linear().build(SHAPE, CLASSES).double().requires_grad_(False)
    x, y, threat, weight = images(4), labels(4), Threat(norm, 0.4), model[1].weight

    worst = crown.worst_case(model, x, y, threat)

    for c in range(CLASSES):
        attack = threat.farthest(x, (weight[c] - weight[y]).view_as(x))
        logits = model(attack)
        reached = logits[:, c] - logits.gather(1, y[:, None]).squeeze(1)
        torch.testing.assert_close(worst[:, c], reached, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", EPS)
def test_in_a_ball_where_no_relu_turns_they_are_reached_too(norm: Norm):
    torch.manual_seed(0)
    model, x, y, threat = Mlp(hidden=(8,)).build(SHAPE, CLASSES).double(), images(1), labels(1), Threat(norm, 1e-4)
    model.requires_grad_(False)

    worst = crown.worst_case(model, x, y, threat)

    jacobian: Any = torch.func.jacrev(lambda image: model(image[None])[0])(x[0])
    attacks = [threat.farthest(x, (jacobian[c] - jacobian[0])[None]) for c in range(CLASSES)]
    reached = torch.stack([(model(a)[0, c] - model(a)[0, 0]) for c, a in enumerate(attacks)])
    torch.testing.assert_close(worst[0], reached, rtol=1e-12, atol=1e-12)


def by_matrices(model: Any, x: Tensor, y: int, eps: float) -> tuple[Tensor, list[int]]:
    """Upper bounds of logits minus the label's in Linf, the recursion of section 3 written out; and unstable neurons.

    For linear layers with ReLUs between them, of one image whose ball lies in the box.
    """
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    lines: list[tuple[Tensor, Tensor, Tensor]] = []

    def lowest(planes: Tensor, at: int) -> Tensor:
        total = torch.zeros(len(planes), dtype=x.dtype)
        for number in reversed(range(at + 1)):
            total = total + planes @ layers[number].bias
            planes = planes @ layers[number].weight
            if number:
                below, above, offset = lines[number - 1]
                total = total + planes.clamp(max=0) @ offset
                planes = planes.clamp(min=0) * below + planes.clamp(max=0) * above
        return total + planes @ x.flatten() - eps * planes.abs().sum(1)

    low, high, turning = x.flatten() - eps, x.flatten() + eps, list[int]()
    for number, layer in enumerate(layers):
        weight, bias = layer.weight, layer.bias
        if layer is layers[-1]:
            weight, bias = weight - weight[y], bias - bias[y]  # elided
        ends = (
            weight.clamp(min=0) @ low + weight.clamp(max=0) @ high,
            weight.clamp(min=0) @ high + weight.clamp(max=0) @ low,
        )
        low, high = ends[0] + bias, ends[1] + bias
        if layer is layers[-1]:
            logits = torch.eye(len(weight), dtype=x.dtype)
            return high.minimum(-lowest(logits[y] - logits, number)), turning
        open_, one = (low < 0) & (high > 0), torch.eye(len(weight), dtype=x.dtype)
        low = torch.where(open_, low.maximum(lowest(one, number)), low)
        high = torch.where(open_, high.minimum(-lowest(-one, number)), high)
        open_ = (low < 0) & (high > 0)
        above = torch.where(open_, high / (high - low), (low >= 0).to(low))
        below = torch.where(open_, (high > -low).to(low), above)
        lines.append((below, above, torch.where(open_, -above * low, 0)))
        turning.append(int(open_.sum()))
        low, high = low.clamp(min=0), high.clamp(min=0)
    raise AssertionError("no layers")


@pytest.mark.parametrize("seed", range(2))
def test_they_are_those_of_the_recursion_written_out_with_matrices(seed: int):
    torch.manual_seed(seed)
    model: Any = Mlp(hidden=(16, 16, 16)).build(SHAPE, CLASSES).double().requires_grad_(False)
    x, y = 0.2 + 0.6 * images(2, seed), labels(2)

    worst = crown.worst_case(model, x, y, Threat("Linf", 0.06))

    for image, label, found in zip(x, y.tolist(), worst, strict=True):
        expected, turning = by_matrices(model, image, label, 0.06)
        assert min(turning) > 0, "a neuron that may go either way in every layer"
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_two_lines_around_a_neuron_by_hand():
    # relu(x - 1/2) of one pixel in [1/4, 1]: [l, u] = [-1/4, 1/2], so above lies 2/3 (z + 1/4), below lies z.
    model: Any = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    with torch.no_grad():
        for layer, weight, bias in ((model[1], [[1.0]], [-0.5]), (model[3], [[1.0], [0.0]], [0.0, 0.25])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    x = torch.full((2, 1, 1, 1), 0.625, dtype=torch.float64)

    worst = crown.worst_case(model, x, torch.tensor([0, 1]), Threat("Linf", 0.375))

    # Label 0 leads by relu - 1/4 at the least: interval 0 - 1/4; the plane z - 1/4 reaches -1/2, which is worse.
    # Label 1 leads by 1/4 - relu: both say 1/4 - 1/2.
    assert worst.tolist() == [[0, 0.25], [0.25, 0]]


def test_at_radius_0_they_are_the_clean_differences(network: nn.Module):
    x, y = images(4), labels(4)

    logits = network(x)

    expected = logits - logits.gather(1, y[:, None])
    torch.testing.assert_close(crown.worst_case(network, x, y, Threat("Linf", 0)), expected, rtol=0, atol=1e-12)


def test_a_layer_that_is_neither_relu_nor_affine_is_refused():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.Softplus())

    with pytest.raises(BadInput, match=r"^CROWN: a Softplus is neither a ReLU nor affine$"):
        crown.worst_case(model, images(1), labels(1), Threat("Linf", 0.1))
