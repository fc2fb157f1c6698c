"""The small MNIST convnet of the robustness literature: Wong, Rice & Kolter, ICLR 2020 (arXiv 2001.03994), section 5.

The same network is in Wong & Kolter, ICML 2018 (arXiv 1711.00851).
"""

from __future__ import annotations

from torch import nn

from advbench.models.base import Model, Shape
from advbench.spec import BadInput


class MnistCnn(Model):
    """Two 4x4 convolutions of stride 2 and two linear layers, on raw pixels; 166,406 parameters on MNIST."""

    name = "mnist-cnn"
    about = "the fast-AT paper's MNIST network: two strided convolutions and two linear layers"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        channels, height, width = shape
        # Each convolution makes floor(n / 2) of n, and something must be left after two.
        if min(height, width) < 4:
            raise BadInput(f"model.name: mnist-cnn needs images of at least 4x4 pixels, not {height}x{width}")
        return nn.Sequential(
            nn.Conv2d(channels, 16, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (height // 4) * (width // 4), 100),
            nn.ReLU(),
            nn.Linear(100, classes),
        )
