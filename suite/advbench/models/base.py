"""What a model family is, and the normalisation that every model carries inside."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from advbench.spec import BadInput, Part

Shape = tuple[int, int, int]
"""(channels, height, width) of one image."""


class Normalize(nn.Module):
    """(x - mean) / std per channel, for pixels in [0, 1]; the constants travel with the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


def per_channel(values: tuple[float, ...], channels: int, field: str) -> tuple[float, ...]:
    """One value for each channel; a single value stands for all. Raises BadInput that names the model's `field`."""
    if len(values) == 1:
        return values * channels
    if len(values) != channels:
        raise BadInput(
            f"model.{field}: {len(values)} values, but the images have {channels} channel{'s' if channels > 1 else ''};"
            f" write one value for each, or one for all: {field} = [0.5]"
        )
    return values


class Model(Part):
    """Base of all model families. A subclass sets `name`, `about`, its own fields and writes `build`."""

    about: ClassVar[str]
    """One line for `advbench list models`."""

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """A fresh network (N, *shape) in [0, 1] -> logits (N, classes), initialised from torch's global stream."""
        raise NotImplementedError
