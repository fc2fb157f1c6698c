"""What a model family is, and the normalisation that every model carries inside."""

from __future__ import annotations

from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
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
    published: ClassVar[tuple[str, ...]] = ()
    """What `pretrained` may be beside a file: weights that whoever wrote the model publishes."""

    pretrained: str | None = None
    """Weights to start from: a .safetensors state dict, relative to the data root; for a library's model "imagenet"."""
    extra_data: str | None = Field(default=None, min_length=1)
    """What those weights saw beside the task's training data ("none" is an answer): a board must be able to say it."""
    pretrained_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the weights; filled in by the plan. A task that writes it down is refused any other weights."""

    @model_validator(mode="after")
    def _says_what_it_saw(self) -> Self:
        if self.pretrained is not None and self.extra_data is None:
            raise ValueError('pretrained weights need extra_data = "...": what they saw, or "none"')
        if self.pretrained is None and (self.extra_data or self.pretrained_sha256) is not None:
            raise ValueError("extra_data and pretrained_sha256 speak of pretrained weights, and there are none")
        file = self.pretrained is not None and self.pretrained not in self.published
        if file and not str(self.pretrained).endswith(".safetensors"):
            words = "".join(f' or "{word}"' for word in self.published)
            raise ValueError(f"pretrained should be a .safetensors file{words}, not {self.pretrained!r}")
        return self

    def build(self, shape: Shape, classes: int) -> nn.Module:
        """A fresh network (N, *shape) in [0, 1] -> logits (N, classes), initialised from torch's global stream."""
        raise NotImplementedError


class Normalized(Model):
    """A family that begins with `Normalize`; the constants are fields."""

    mean: tuple[float, ...] = Field(default=(0.4914, 0.4822, 0.4465), min_length=1)
    """Subtracted from each channel; one value stands for all channels. Default: CIFAR-10's training images."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.2471, 0.2435, 0.2616), min_length=1)
    """What each channel is then divided by."""

    def normalize(self, channels: int) -> Normalize:
        """The first layer. Raises BadInput when the constants are of another number of channels."""
        return Normalize(per_channel(self.mean, channels, "mean"), per_channel(self.std, channels, "std"))
