"""The moving average against its own recursion, and batch norm's statistics against those of all images at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from advbench.average import averaged, estimate_batch_norm


@pytest.mark.parametrize("decay", [0.3, 0.995])
def test_the_average_follows_its_recursion(decay):
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    average = averaged(model, decay)
    expected = None
    for step in range(30):
        nn.init.normal_(model.weight)
        average.update_parameters(model)
        # The first weights it meets are the average; step t then keeps min(decay, (1 + t) / (10 + t)) of it.
        keep = 0 if expected is None else min(decay, (1 + step) / (10 + step))
        expected = (keep * expected if expected is not None else 0) + (1 - keep) * model.weight.detach().double()
        weight = next(average.module.parameters())
        torch.testing.assert_close(weight.detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_the_statistics_are_those_of_the_averaged_weights_on_all_batches():
    torch.manual_seed(0)
    first, norm = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)
    network = nn.Sequential(first, norm, nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)).eval()
    batches = list(torch.rand(40, 1, 8, 8).split(10))

    assert estimate_batch_norm(network, batches) == 40

    outputs = [first(batch).detach() for batch in batches]
    assert not network.training
    torch.testing.assert_close(norm.running_mean, torch.cat(outputs).mean((0, 2, 3)))
    # Each batch estimates its own variance, and the estimates are averaged.
    torch.testing.assert_close(norm.running_var, torch.stack([o.var((0, 2, 3)) for o in outputs]).mean(0))


def test_a_network_without_batch_norm_costs_no_passes():
    assert estimate_batch_norm(nn.Linear(2, 2), [torch.rand(4, 2)]) == 0
