"""What a collector has to keep, where the right answer can be written down: on a model that is linear in the pixels."""

from __future__ import annotations

import pytest
import torch
from my_collector import MyCollector
from torch import Tensor, nn

from advbench.collect import collect
from advbench.data.base import Examples
from advbench.threat import Norm, Threat

Y = torch.arange(24) % 2


class Linear(nn.Module):
    """Two classes with logits -w.x/2 and w.x/2: the cross-entropy is softplus(-margin), the margin w.x or -w.x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1) @ self.w / 2
        return torch.stack([-half, half], 1)


def examples() -> Examples:
    images = torch.rand(24, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    return Examples(images, Y, torch.arange(24), peak=1)


@pytest.mark.parametrize(("norm", "dual"), [("Linf", 1), ("L2", 2), ("L1", torch.inf)])
def test_the_slope_of_a_linear_model_is_in_closed_form(norm: Norm, dual: float):
    model, data = Linear(), examples()

    found = collect(model, data, Threat(norm, 0.1), [MyCollector()])["my-collector"]

    # d softplus(-m) / dx = -sigmoid(-m) dm/dx, and |dm/dx| is w's.
    margin = (2 * Y - 1) * (data.pixels(slice(None)).flatten(1) @ model.w.detach())
    slope = torch.sigmoid(-margin) * model.w.detach().norm(p=dual)
    torch.testing.assert_close(found.arrays["slope"], slope)
    assert found.values["slope_mean"].value == pytest.approx(float(slope.mean()))
    assert found.values["slope_mean"].unit == "nats per unit of the norm"


def test_batches_change_nothing():
    threat = Threat("L2", 0.1)
    whole, small = (collect(Linear(), examples(), threat, [MyCollector()], batch=size) for size in (24, 5))

    torch.testing.assert_close(small["my-collector"].arrays, whole["my-collector"].arrays)


def test_the_model_is_what_it_was():
    model = Linear().train()
    before = model.w.detach().clone()

    collect(model, examples(), Threat("Linf", 0.1), [MyCollector()])

    assert torch.equal(model.w, before)
    assert model.training
    assert model.w.requires_grad
    assert model.w.grad is None
