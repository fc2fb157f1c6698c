"""What tests of collectors share: a trained digits-cnn, digits, and a scene made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.pgd import PGD
from advbench.collectors.base import Scene
from advbench.data.base import Examples
from advbench.threat import Threat


@pytest.fixture
def scene(digits_cnn: nn.Module, digits_test: Examples) -> Callable[..., Scene]:
    """A function: fields of a Scene -> one of the trained digits-cnn on the first digits, frozen, in float64."""

    def make(count: int = 40, **fields: Any) -> Scene:
        x: Tensor = digits_test.pixels(slice(0, count)).double()
        how: dict[str, Any] = {
            "model": digits_cnn.double(),
            "threat": Threat("Linf", 0.1),
            "classes": 10,
            "attack": PGD(steps=5),
            **fields,
        }
        how["model"].eval().requires_grad_(False)
        return Scene(x=how.pop("x", x), y=how.pop("y", digits_test.labels[:count]), **how)

    return make


@pytest.fixture
def logistic() -> Callable[[int], tuple[nn.Module, Tensor, Tensor]]:
    """A function: seed -> a two-class linear model whose logits are (-w.x / 2, w.x / 2), images and labels, float64."""

    def make(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
        source = torch.Generator().manual_seed(seed)
        x = 0.3 + 0.4 * torch.rand(24, 1, 3, 4, generator=source, dtype=torch.float64)
        w = torch.randn(12, generator=source, dtype=torch.float64)
        return Logistic(w), x, torch.arange(24) % 2

    return make


class Logistic(nn.Module):
    """Cross-entropy of its logits with label 0 or 1 is softplus(-s w.x) with s = -1 or 1."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1) @ self.w / 2
        return torch.stack([-half, half], 1)
