from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from advbench.models.digits_cnn import DigitsCnn


def test_parameters() -> None:
    conv = (9 * 1 * 32 + 32) + (9 * 32 * 64 + 64)
    linear = (64 * 4 * 4 * 128 + 128) + (128 * 10 + 10)
    assert conv + linear == 151_306
    assert sum(p.numel() for p in DigitsCnn().build((1, 8, 8), 10).parameters()) == 151_306


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 5), (2, 1, 1)])
def test_it_computes_what_it_says(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = DigitsCnn().build(shape, 3)
    w1, b1, w2, b2, w3, b3, w4, b4 = network.parameters()
    x = torch.rand(5, *shape)
    h = F.conv2d(x, w1, b1, padding=1).relu()
    h = F.conv2d(h, w2, b2, stride=2, padding=1).relu().flatten(1)
    torch.testing.assert_close(network(x), F.linear(F.linear(h, w3, b3).relu(), w4, b4))
