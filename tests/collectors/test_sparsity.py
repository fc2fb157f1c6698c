"""Zeros that were put there are found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advbench.collectors.base import Scene
from advbench.collectors.sparsity import Sparsity
from advbench.threat import Threat


def test_zeros_and_shut_gates_are_counted():
    linear = nn.Linear(4, 4)
    with torch.no_grad():
        linear.weight.copy_(torch.diag(torch.tensor([1.0, -1, 1, 1])))
        linear.bias.zero_()
    model = nn.Sequential(nn.Flatten(), linear, nn.ReLU()).requires_grad_(False)
    scene = Scene(model, torch.full((3, 1, 2, 2), 0.5), torch.zeros(3).long(), Threat("Linf", 0.1), 4)

    found = Sparsity().collect(scene)

    assert found.values["weights"].value == pytest.approx(12 / 16)
    assert found.values["clean_shut_median"].value == pytest.approx(1 / 4)
    assert found.arrays["adversarial_shut"].tolist() == [0.25] * 3


def test_a_network_without_gates_or_weights_says_so():
    scene = Scene(nn.Flatten(), torch.rand(3, 1, 2, 2), torch.zeros(3).long(), Threat("Linf", 0.1), 4)

    found = Sparsity().collect(scene)

    assert found.values == {}
    assert "not applicable: gates, for the network has none" in found.notes
