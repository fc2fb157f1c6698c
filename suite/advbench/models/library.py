"""Every classifier of a library as one family: `torchvision:resnet18`, with its first layers fitted to small images.

Those networks are drawn for 224x224 pixels: their stem throws away three quarters of each side, which leaves nothing
of a 32x32 image. What CIFAR networks do (He et al., arXiv 1512.03385, section 4.2) is done to them here: a first
convolution of stride 1 and no pooling behind it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import model_validator
from torch import Tensor, nn

from advbench.models.base import Normalized, Shape
from advbench.spec import BadInput

SMALL = 64
"""Pixels of the shorter side from which on a network keeps its own stem."""


@dataclass(frozen=True)
class Published:
    """Weights as a library publishes them, and the normalisation they were trained with."""

    weights: Mapping[str, Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class Library(Normalized):
    """Base of those families. A subclass writes `known`, `make` and `download`; `chosen` makes a model of it."""

    published = ("imagenet",)
    arch: ClassVar[str] = ""
    """The library's name of the network; empty on the family itself."""

    stem: Literal["auto", "original"] = "auto"
    """auto: below 64 pixels the first convolution becomes 3x3 of stride 1 and the max pool behind it goes."""

    @model_validator(mode="after")
    def _is_one_network(self) -> Self:
        if not self.arch:
            raise ValueError(f'name one of its networks: name = "{self.name}:resnet18"')
        return self

    @classmethod
    def known(cls) -> list[str]:
        """The library's classifiers, by name."""
        raise NotImplementedError

    @classmethod
    @cache
    def chosen(cls, arch: str) -> type[Self]:
        """The model that is called `arch` there. Raises BadInput with the nearest name."""
        known = cls.known()
        if arch not in known:
            close = difflib.get_close_matches(arch, known, n=1, cutoff=0.5)
            # A list of a thousand names helps nobody, so unlike elsewhere it is not written out.
            end = f"; did you mean '{cls.name}:{close[0]}'?" if close else f"; there are {len(known)}, see its manual"
            raise BadInput(f"no model '{cls.name}:{arch}'{end}")
        own = {"__module__": cls.__module__, "__doc__": cls.__doc__, "name": f"{cls.name}:{arch}", "arch": arch}
        return type(cls)(cls.__name__, (cls,), own)

    def fits(self, shape: Shape) -> bool:
        """Whether images of this shape are so small that the network is fitted to them."""
        return self.stem == "auto" and min(shape[1:]) < SMALL

    def make(self, shape: Shape, classes: int) -> tuple[nn.Module, bool]:
        """The library's network, and whether its constructor has fitted it to the image already."""
        raise NotImplementedError

    def download(self) -> Published:
        """The ImageNet weights of the network as published. Raises whatever the library raises."""
        raise NotImplementedError

    def build(self, shape: Shape, classes: int) -> nn.Module:
        first = self.normalize(shape[0])
        try:
            network, fitted = self.make(shape, classes)
        except Exception as error:  # each of a thousand constructors has its own way to refuse
            said = (str(error) or type(error).__name__).splitlines()[0]
            line = f"model.name: {self.name} cannot be built for images of {shape}: {said}; take another model"
            raise BadInput(line) from None
        fit(network, shape[0], small=self.fits(shape) and not fitted)
        plain(network)
        return nn.Sequential(first, network)


def plain(network: nn.Module) -> None:
    """Nothing written in place and no fused attention, in place."""
    for module in cast("Iterable[Any]", network.modules()):
        # What writes in place would change what hooks, attacks and collectors have seen.
        if hasattr(module, "inplace"):
            module.inplace = False
        # Fused attention has no second derivative on a CPU, and regularisers of the gradient and Hessians need it.
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
        if isinstance(module, nn.MultiheadAttention):
            module.register_forward_pre_hook(_with_weights, with_kwargs=True)


def _with_weights(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    # Asked for its attention weights, torch's own layer computes them, unfused.
    del module
    return args, kwargs | {"need_weights": True}


def fit(network: nn.Module, channels: int, *, small: bool) -> None:
    """Make the first convolution take `channels`; when `small`, also keep the size of the image: in place.

    Only a strided first convolution is touched for size, and only a max pool that comes before any other stride is
    removed: networks such as VGG begin at full size and need their pools.
    """
    layers = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.MaxPool2d)}
    if not layers:
        return
    (_, first), *rest = layers.items()
    if not isinstance(first, nn.Conv2d):
        return
    strided = small and _stride(first) > 1
    if first.in_channels != channels or (strided and first.kernel_size != (3, 3)):
        _redraw(first, channels, (3, 3) if strided else (first.kernel_size[0], first.kernel_size[1]))
    if not strided:
        return
    first.stride, first.padding = (1, 1), (1, 1)
    following = next(((name, layer) for name, layer in rest if _stride(layer) > 1), None)
    if following and isinstance(following[1], nn.MaxPool2d):
        network.set_submodule(following[0], nn.Identity())


def _stride(layer: Any) -> int:
    return max(layer.stride) if isinstance(layer.stride, tuple) else layer.stride


def _redraw(layer: nn.Conv2d, channels: int, kernel: tuple[int, int]) -> None:
    # Changed rather than replaced, because libraries have kinds of convolutions of their own (standardised weights).
    layer.in_channels, layer.kernel_size = channels, kernel
    layer.weight = nn.Parameter(layer.weight.new_empty(layer.out_channels, channels // layer.groups, *kernel))
    layer.reset_parameters()
