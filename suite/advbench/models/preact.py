"""The pre-activation residual network that PreActResNet-18 and the wide networks share: He et al., ECCV 2016."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from advbench.models.base import Normalize


def network(
    first: Normalize, channels: int, stem: int, widths: Sequence[int], blocks: int, classes: int
) -> nn.Sequential:
    """A 3x3 stem of `stem` channels, stages of `blocks` blocks, each but the first at half the size, and a linear head.

    arXiv 1603.05027, with the final BN-ReLU that its section 4.1 asks for. Images (N, channels, H, W) of any size.
    """
    stages: list[nn.Module] = []
    for number, (before, width) in enumerate(pairwise((stem, *widths))):
        stages.append(Block(before, width, stride=2 if number else 1))
        stages += [Block(width, width, stride=1) for _ in range(blocks - 1)]
    return nn.Sequential(
        first,
        nn.Conv2d(channels, stem, 3, padding=1, bias=False),
        *stages,
        nn.BatchNorm2d(widths[-1]),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(widths[-1], classes),
    )


class Block(nn.Module):
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
