"""Gates are counted as they are, whoever calls the ReLU."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advbench.collectors.gates import agreement, open_share


class Called(nn.Module):
    """ReLU(x) by a module, in place, by a function or as a clamp."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1) * 1.0
        calls = {
            "module": lambda: nn.ReLU()(flat),
            "in place": lambda: nn.ReLU(inplace=True)(flat),
            "function": lambda: F.relu(flat),
            "method": lambda: flat.relu(),
            "clamp_min": lambda: flat.clamp_min(0),
            "clamp": lambda: flat.clamp(min=0),
            "clamp in place": lambda: flat.clamp_(min=0.0),
            "leaky": lambda: F.leaky_relu(flat),
            "prelu": lambda: nn.PReLU()(flat),
            "relu6": lambda: nn.ReLU6()(flat),
        }
        return calls[self.how]()


CLAMPS = ["clamp_min", "clamp", "clamp in place"]


@pytest.mark.parametrize("how", ["module", "in place", "function", "method", *CLAMPS, "leaky", "prelu", "relu6"])
def test_agreement_and_openness_are_counts_of_signs(how):
    x = torch.tensor([[1.0, -1, 2, -2], [1, 1, 1, 1]])
    other = torch.tensor([[1.0, 1, -2, -2], [-1, 1, 1, 0]])

    assert agreement(Called(how), x, other).tolist() == [0.5, 0.5]
    assert open_share(Called(how), x).tolist() == [0.5, 1.0]


class Bounded(nn.Module):
    """What keeps numbers within bounds, and is no unit of a network."""

    def forward(self, x: Tensor) -> Tensor:
        flat = F.normalize(x.flatten(1))
        return flat.clamp(0, 1).clamp(max=0).clamp(min=torch.zeros(4)).clamp(min=-1)


class Aside(nn.Module):
    """Its units are those of the images; what it does to its own parameters is none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.ones(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        planes = x[:, None].expand(-1, 2, -1, -1, -1).flatten(1, 2)
        return F.relu(planes * F.relu(self.scale)).flatten(1) + F.relu(self.shift).sum()


def test_units_are_counted_in_maps_too_and_parameters_are_none():
    x = torch.tensor([[[[1.0, -1], [2, -2]]], [[[1, 1], [1, 0]]]])

    assert open_share(Aside(), x).tolist() == [0.5, 0.75]
    assert agreement(Aside(), x, x.flip(0)).tolist() == [0.75, 0.75]


def test_a_network_without_gates_has_no_share():
    x = torch.rand(2, 1, 2, 2)

    for model in (nn.Flatten(), Bounded()):
        assert all(math.isnan(value) for value in agreement(model, x, x).tolist())
        assert all(math.isnan(value) for value in open_share(model, x).tolist())
