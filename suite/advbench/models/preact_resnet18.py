"""PreActResNet-18, the usual network of CIFAR-10 adversarial training: He et al., ECCV 2016 (arXiv 1603.05027).

Eighteen layers as in He et al., CVPR 2016 (arXiv 1512.03385), table 1, with the stem for small images (3x3, stride 1,
no pooling) and the final BN-ReLU that section 4.1 of the pre-activation paper asks for. Weights start as PyTorch
starts them, as in the published adversarial training code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from advbench.models.base import Model, Normalize, Shape, per_channel

WIDTHS = (64, 128, 256, 512)


class PreActResNet18(Model):
    """Four stages of two pre-activation blocks; 11,172,170 parameters on CIFAR-10. Images of any size."""

    name = "preact-resnet18"
    about = "PreActResNet-18 with the stem for small images, the usual CIFAR-10 network"

    mean: tuple[float, ...] = Field(default=(0.4914, 0.4822, 0.4465), min_length=1)
    """Subtracted from each channel; one value stands for all channels. Default: CIFAR-10's training images."""
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.2471, 0.2435, 0.2616), min_length=1)
    """What each channel is then divided by."""

    def build(self, shape: Shape, classes: int) -> nn.Module:
        channels = shape[0]
        mean, std = per_channel(self.mean, channels, "mean"), per_channel(self.std, channels, "std")
        stages: list[nn.Module] = []
        for before, width in pairwise((WIDTHS[0], *WIDTHS)):
            stages += [_Block(before, width, stride=1 if before == width else 2), _Block(width, width, stride=1)]
        return nn.Sequential(
            Normalize(mean, std),
            nn.Conv2d(channels, WIDTHS[0], 3, padding=1, bias=False),
            *stages,
            nn.BatchNorm2d(WIDTHS[-1]),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(WIDTHS[-1], classes),
        )


class _Block(nn.Module):
    """BN-ReLU-conv twice, added to the input; where the shape changes, to a 1x1 convolution of the first BN-ReLU."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.second = nn.Sequential(
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        changes = stride != 1 or before != width
        self.shortcut = nn.Conv2d(before, width, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        activated = self.first(x)
        return self.second(activated) + (x if self.shortcut is None else self.shortcut(activated))
