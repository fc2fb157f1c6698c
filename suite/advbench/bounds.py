"""Interval bounds: what every logit can be while the pixels stay in a box.

Gowal et al., ICCV 2019 (arXiv 1810.12715), section 3: an affine layer moves the box's centre as it moves a point, and
its radius by the absolute values of its weights; a monotone layer moves the two ends. The result contains every value
and may contain more, for it forgets that two features come from the same pixels.

Layers are walked one by one, so a network is an `nn.Sequential` (of others) of layers that are known here by their very
class; anything else is refused by name, because a bound that overlooks a step is no bound. Numbers are as exact as the
tensors are: nothing is rounded outwards, and whoever proves something takes float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from advbench.models.base import Normalize
from advbench.spec import BadInput

MONOTONE = (
    *(nn.ReLU, nn.ReLU6, nn.Softplus, nn.Sigmoid, nn.Tanh, nn.Identity, nn.Flatten, Normalize),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
)
"""No output falls where an input rises."""
WEIGHTED = (nn.Linear, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
DROPOUT = (nn.Dropout, nn.Dropout2d)


@dataclass(frozen=True)
class Box:
    """A batch on its way: the points themselves, and the centre and radius of what they may become, (N, ...) each."""

    clean: Tensor
    centre: Tensor
    radius: Tensor

    @classmethod
    def between(cls, clean: Tensor, low: Tensor, high: Tensor) -> Box:
        """From the two ends."""
        return cls(clean, (low + high) / 2, (high - low) / 2)

    @property
    def low(self) -> Tensor:
        """The lower end."""
        return self.centre - self.radius

    @property
    def high(self) -> Tensor:
        """The upper end."""
        return self.centre + self.radius


def layers(model: nn.Module) -> list[nn.Module]:
    """The network's layers in order. Raises BadInput that names the first one that is not known."""
    return list(_layers(model, ""))


def _layers(module: nn.Module, name: str) -> Iterator[nn.Module]:
    kind = class_of(module)
    if issubclass(kind, nn.Sequential) and kind.forward is nn.Sequential.forward:
        for key, child in module.named_children():
            yield from _layers(child, f"{name}.{key}" if name else key)
        return
    where = f"layer {name}" if name else "the network"
    # Passes are counted by a hook on the network itself; whatever hangs on a layer may change what it does.
    hooked = name and (module._forward_pre_hooks or module._forward_hooks)  # pyright: ignore[reportPrivateUsage]
    if hooked or (kind in WEIGHTED and "weight" not in dict(module.named_parameters(recurse=False))):
        raise BadInput(
            f"interval bounds: {where} has hooks, or weights computed from others (spectral_norm, weight_norm); "
            "they would overlook that: remove it from the trained network"
        )
    statistics = kind not in NORMS or getattr(module, "running_mean", None) is not None
    if kind not in (*MONOTONE, *WEIGHTED, *NORMS, *DROPOUT) or not statistics:
        said = kind.__name__ if statistics else f"{kind.__name__} without running statistics"
        known = ", ".join(sorted(one.__name__ for one in (*MONOTONE, *WEIGHTED, *NORMS, *DROPOUT)))
        raise BadInput(
            f"interval bounds: {where} is a {said}, which they do not know; they know an nn.Sequential of {known}"
        )
    yield module


def class_of(module: nn.Module) -> Any:
    """Its class, as it was before `precision.fast` took its place."""
    return getattr(type(module), "exactly", type(module))


def through(layer: nn.Module, box: Box) -> Box:
    """The box behind one known layer. In train mode batch norm takes the statistics of the clean points for all."""
    kind = class_of(layer)
    if kind in WEIGHTED:
        only = {name: torch.zeros_like(p) if name == "bias" else p.abs() for name, p in layer.named_parameters()}
        return Box(layer(box.clean), layer(box.centre), functional_call(layer, only, box.radius))
    if kind in NORMS:
        return _batch_norm(layer, box)
    if kind in DROPOUT:
        mask = layer(torch.ones_like(box.clean))
        return Box(box.clean * mask, box.centre * mask, box.radius * mask)
    return Box.between(layer(box.clean), layer(box.low), layer(box.high))


def _batch_norm(layer: Any, box: Box) -> Box:
    mean, variance = layer.running_mean, layer.running_var
    if layer.training:
        every = [d for d in range(box.clean.dim()) if d != 1]
        mean, variance = box.clean.mean(every), box.clean.var(every, correction=0)
    scale = (variance + layer.eps).rsqrt() * (1 if layer.weight is None else layer.weight)
    shift = (0 if layer.bias is None else layer.bias) - mean * scale
    scale, shift = (value.view(-1, *[1] * (box.clean.dim() - 2)) for value in (scale, shift))
    return Box(layer(box.clean), box.centre * scale + shift, box.radius * scale.abs())


def worst_case(model: nn.Module, x: Tensor, y: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The clean logits of x, and upper bounds of each logit minus the label's, (N, C); 0 at the labels y (N,).

    An example whose other bounds are negative is read right everywhere in its box. A last linear layer is elided, as in
    the authors' code: the rows of its weights are subtracted before they are bounded, which is tighter than the
    difference of two logits' bounds. Three passes for each example. Raises BadInput.
    """
    box = _walk(model, layers(model), Box.between(x, low, high), y)
    return box.clean, box.high


def _walk(model: nn.Module, path: list[nn.Module], box: Box, y: Tensor) -> Box:
    """Through all layers: the box of the logits minus the label's."""

    def forward(clean: Tensor) -> Tensor:
        now = Box(clean, box.centre, box.radius)
        for layer in path[:-1]:
            now = through(layer, now)
        end = differences(path[-1], now, y)
        return torch.cat([end.clean, end.centre, end.radius])

    # In the place of the model's own forward pass, so that whoever counts its passes counts these three.
    model.forward = forward
    try:
        return Box(*model(box.clean).chunk(3))
    finally:
        del model.forward


def differences(layer: Any, box: Box, y: Tensor) -> Box:
    """The box behind the network's last layer, of each logit minus the label's (N,): (N, C), 0 at the label."""
    if class_of(layer) is not nn.Linear:
        end, rows = through(layer, box), y[:, None]
        low, high = end.low - end.high.gather(1, rows), end.high - end.low.gather(1, rows)
        return Box.between(end.clean, low.scatter(1, rows, 0), high.scatter(1, rows, 0))
    weight = layer.weight - layer.weight[y][:, None]  # (N, C, features)
    bias = 0 if layer.bias is None else layer.bias - layer.bias[y][:, None]
    centre, radius = ((w @ v[:, :, None]).squeeze(2) for w, v in ((weight, box.centre), (weight.abs(), box.radius)))
    return Box(layer(box.clean), centre + bias, radius)
