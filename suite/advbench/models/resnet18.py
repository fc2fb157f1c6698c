"""ResNet-18 for small images: He et al., CVPR 2016 (arXiv 1512.03385), table 1, activation after the addition.

The stem is the one of the paper's own CIFAR-10 networks (section 4.2: 3x3, stride 1, no pooling), the shortcuts its
option B. Weights start as PyTorch starts them, as in the published adversarial training code.
"""

from __future__ import annotations

from itertools import pairwise

from pydantic import Field
from torch import Tensor, nn

from advbench.models.base import Normalized, Shape


class ResNet18(Normalized):
    """Four stages of two residual blocks; 11,173,962 parameters on CIFAR-10 at width 64. Images of any size."""

    name = "resnet18"
    about = "ResNet-18 with the stem for small images; width = channels of its first stage"

    width: int = Field(default=64, ge=1, le=1024)
    """Channels of the stem and of the first stage, doubled by each of the others (the paper: 64). At 8 a pass costs a
    64th of the multiplications, for experiments on a CPU."""

    def build(self, shape: Shape, classes: int) -> nn.Module:
        channels, widths = shape[0], [self.width * 2**stage for stage in range(4)]
        stages: list[nn.Module] = []
        for before, width in pairwise((widths[0], *widths)):
            stages += [_Block(before, width, stride=1 if before == width else 2), _Block(width, width, stride=1)]
        return nn.Sequential(
            self.normalize(channels),
            nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            *stages,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(widths[-1], classes),
        )


class _Block(nn.Module):
    """conv-BN-ReLU-conv-BN, added to the input (where the shape changes, to its 1x1 convolution), then ReLU."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.shortcut = None
        if stride != 1 or before != width:
            projection = nn.Conv2d(before, width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
        self.last = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(x) + (x if self.shortcut is None else self.shortcut(x)))
