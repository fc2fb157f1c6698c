"""Moving the weights: directions, and the loss where they lead."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from advbench.attacks.base import Attack
from advbench.collectors.base import Scene
from advbench.losses import cross_entropy
from advbench.threat import Threat

Weights = Mapping[str, Tensor]


def filter_normalized(direction: Weights, weights: Weights) -> dict[str, Tensor]:
    """The direction with each filter as long as the weights' own; zero for biases and batch norm.

    A filter is what makes one output: a row of a linear layer, one output channel of a convolution. Li et al., NeurIPS
    2018 (arXiv 1712.09913), section 4: without it a network with larger weights would only look flatter. Biases and
    the weights of batch norm (one dimension) stay where they are, for they have no filters.
    """
    found: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            found[name] = torch.zeros_like(weight)
            continue
        lengths = [value.flatten(1).norm(dim=1) for value in (weight, direction[name])]
        scale = lengths[0] / lengths[1].clamp_min(torch.finfo(weight.dtype).tiny)
        found[name] = direction[name] * scale.view(-1, *[1] * (weight.dim() - 1))
    return found


def normal(weights: Weights, source: torch.Generator) -> dict[str, Tensor]:
    """A direction of N(0, 1) entries."""
    return {name: torch.randn(w.shape, generator=source, dtype=w.dtype, device=w.device) for name, w in weights.items()}


def moved(weights: Weights, *steps: tuple[float, Weights]) -> dict[str, Tensor]:
    """weights + sum of a * direction."""
    found = {name: weight.detach().clone() for name, weight in weights.items()}
    for size, direction in steps:
        for name, weight in found.items():
            weight.add_(direction[name], alpha=size)
    return found


def dot(a: Weights, b: Weights) -> float:
    """<a, b> over all weights, in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


class Moved(torch.nn.Module):
    """The scene's model under other weights, for attacks, which want a module."""

    def __init__(self, scene: Scene, weights: Weights) -> None:
        super().__init__()
        # Not as a submodule: it is somebody else's.
        self.__dict__.update(scene=scene, weights=weights)

    def forward(self, x: Tensor) -> Tensor:
        return self.__dict__["scene"].with_parameters(self.__dict__["weights"], x)


def attacked(scene: Scene, weights: Weights, attack: Attack, threat: Threat | None = None) -> Tensor:
    """Adversarial examples for the model under other weights, from the same random starts each time.

    In the scene's threat, or in another.
    """
    model, ball = Moved(scene, weights), threat or scene.threat

    def work(rows: Tensor) -> dict[str, Tensor]:
        noise = scene.noise("landscape", rows)
        return {"x": attack.run(model, scene.x[rows], scene.y[rows], ball, noise).detach()}

    return scene.map(work)["x"]


def mean_loss(scene: Scene, weights: Weights, images: Tensor) -> float:
    """The mean cross-entropy of `images` (N, ...) under other weights, in nats; summed in float64."""

    def work(rows: Tensor) -> dict[str, Tensor]:
        return {"loss": cross_entropy(scene.with_parameters(weights, images[rows]), scene.y[rows])}

    with torch.no_grad():
        return float(scene.map(work)["loss"].double().mean())


def slope(scene: Scene, weights: Weights, images: Tensor) -> dict[str, Tensor]:
    """The gradient of that mean loss in the weights."""
    leaves = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def work(rows: Tensor) -> dict[str, Tensor]:
        with torch.enable_grad():
            loss = cross_entropy(scene.with_parameters(leaves, images[rows]), scene.y[rows]).sum() / len(images)
            parts = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
        for name, part in zip(leaves, parts, strict=True):
            total[name] += part
        return {"done": rows}

    scene.map(work, 2)
    return total
