"""A fully connected ReLU network on the pixels."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import nn

from advbench.models.base import Model, Shape


class Mlp(Model):
    """Hidden layers of the given widths, each followed by a ReLU."""

    name = "mlp"
    about = "fully connected ReLU network; hidden = widths of its layers"

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(128, 128), min_length=1)

    def build(self, shape: Shape, classes: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Flatten()]
        for width, following in pairwise((math.prod(shape), *self.hidden)):
            layers += [nn.Linear(width, following), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.hidden[-1], classes))
