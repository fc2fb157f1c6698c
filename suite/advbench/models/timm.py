"""The networks of timm by their names there: https://huggingface.co/docs/timm."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

from pydantic import Field
from torch import nn

from advbench.models.base import Shape
from advbench.models.library import Library, Published

PATCH = 4
"""Pixels of a transformer's patch on small images, as CIFAR-10 work with ViTs has it: an 8x8 grid of 32x32 pixels."""


class Timm(Library):
    """`timm:NAME`, or `timm:NAME.TAG` where the tag chooses among published weights."""

    name = "timm"
    about = "any network of timm, such as timm:vit_tiny_patch16_224, fitted to small images"

    patch_size: int | None = Field(default=None, ge=1)
    """Of a vision transformer; default: 4 below 64 pixels, else the network's own."""

    @classmethod
    def known(cls) -> list[str]:
        timm = _timm()
        return [*timm.list_models(), *timm.list_models(pretrained=True)]

    def make(self, shape: Shape, classes: int) -> tuple[nn.Module, bool]:
        create: Any = _timm().create_model
        patch = self.patch_size or (PATCH if self.fits(shape) else None)
        # Only its constructor knows what a network takes; convolutional ones take neither size.
        tries: list[dict[str, Any]] = [{"img_size": shape[1:], "patch_size": patch}] if patch else []
        if self.patch_size is None:
            tries += [{"img_size": shape[1:]}, {}]
        for own in tries:
            try:
                network = create(self.arch, pretrained=False, num_classes=classes, in_chans=shape[0], **own)
            except TypeError as error:
                if own is tries[-1] or not any(name in str(error) for name in own):
                    raise
            else:
                return network, bool(own)
        raise AssertionError("the last try returns or raises")

    def download(self) -> Published:
        network = _timm().create_model(self.arch, pretrained=True)
        told: Any = network.pretrained_cfg
        return Published(network.state_dict(), tuple(told["mean"]), tuple(told["std"]))


def _timm() -> Any:
    with warnings.catch_warnings():
        # Importing it runs deprecated parts of torch, which is nothing that a user of ours could change.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("timm")
