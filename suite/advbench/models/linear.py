"""Softmax regression: the one model whose best adversarial example is known in closed form."""

from __future__ import annotations

import math

from torch import nn

from advbench.models.base import Model, Shape


class Linear(Model):
    """Logits are an affine function of the pixels."""

    name = "linear"
    about = "softmax regression on the pixels"

    def build(self, shape: Shape, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), classes))
