"""A two-layer convnet for 8 by 8 digits: small enough to train adversarially on a laptop in seconds."""

from __future__ import annotations

from torch import nn

from advbench.models.base import Model, Shape


class DigitsCnn(Model):
    """Two 3x3 convolutions, the second of stride 2, and two linear layers; 151,306 parameters on digits."""

    name = "digits-cnn"
    about = "two convolutions and two linear layers, for 8x8 digits"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        channels, height, width = shape
        # A 3x3 convolution of stride 2 and padding 1 makes ceil(n / 2) of n, so an image of any size passes.
        features = 64 * ((height + 1) // 2) * ((width + 1) // 2)
        return nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(features, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )
