from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from advbench.models.mlp import Mlp
from advbench.spec import validate


def test_widths_are_the_hidden_ones() -> None:
    network = Mlp(hidden=(7, 11)).build((1, 8, 8), 10)
    assert [tuple(p.shape) for p in network.parameters()] == [(7, 64), (7,), (11, 7), (11,), (10, 11), (10,)]


def test_relu_stands_between_the_layers_and_not_after_the_last() -> None:
    torch.manual_seed(0)
    network = Mlp(hidden=(7, 11)).build((1, 2, 3), 4)
    w1, b1, w2, b2, w3, b3 = network.parameters()
    x = torch.rand(5, 1, 2, 3)
    first = (x.reshape(5, 6) @ w1.T + b1).clamp(min=0)
    second = (first @ w2.T + b2).clamp(min=0)
    logits = second @ w3.T + b3
    torch.testing.assert_close(network(x), logits)
    assert (logits < 0).any()


def test_the_default_is_two_layers_of_128() -> None:
    # 784 * 128 + 128, 128 * 128 + 128, 128 * 10 + 10
    assert sum(p.numel() for p in Mlp().build((1, 28, 28), 10).parameters()) == 100_480 + 16_512 + 1_290


@pytest.mark.parametrize("hidden", [[], [0], [128, -1], ["128"], 128])
def test_widths_are_checked(hidden: object) -> None:
    with pytest.raises(ValidationError, match="hidden"):
        validate(Mlp, {"hidden": hidden})
