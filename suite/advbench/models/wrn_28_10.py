"""The wide residual network WRN-28-10: Zagoruyko and Komodakis, BMVC 2016 (arXiv 1605.07146), table 1.

Depth 28 and widening factor 10, without dropout, as adversarial training on CIFAR-10 uses it. Depth counts the stem,
two convolutions a block and three of the shortcuts, hence 6 n + 4. Weights start as the paper's code starts them:
He's normal distribution by fan-out, and a head without bias (it learns one).
"""

from __future__ import annotations

from pydantic import Field, field_validator
from torch import nn

from advbench.models.base import Normalized, Shape
from advbench.models.preact import network


class Wrn2810(Normalized):
    """Three stages of four pre-activation blocks; 36,479,194 parameters on CIFAR-10. Images of any size."""

    name = "wrn-28-10"
    about = "WideResNet-28-10, the large CIFAR-10 network; depth = 34 makes WRN-34-10"

    depth: int = Field(default=28, ge=10)
    """Layers: 6 n + 4 for n blocks a stage."""
    widen: int = Field(default=10, ge=1)
    """Stages are 16, 32 and 64 times as wide as this."""

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if (depth - 4) % 6:
            raise ValueError(f"depth should be 6 n + 4 (10, 16, 22, 28, 34, ...), not {depth}")
        return depth

    def build(self, shape: Shape, classes: int) -> nn.Module:
        channels, widths = shape[0], [16 * self.widen, 32 * self.widen, 64 * self.widen]
        net = network(self.normalize(channels), channels, 16, widths, (self.depth - 4) // 6, classes)
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        return net
