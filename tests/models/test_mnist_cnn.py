from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from advbench.models.mnist_cnn import MnistCnn
from advbench.spec import BadInput


def test_parameters() -> None:
    conv = (16 * 1 * 16 + 16) + (16 * 16 * 32 + 32)
    linear = (32 * 7 * 7 * 100 + 100) + (100 * 10 + 10)
    assert conv + linear == 166_406
    assert sum(p.numel() for p in MnistCnn().build((1, 28, 28), 10).parameters()) == 166_406


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 4, 7), (1, 9, 6)])
def test_it_computes_what_the_paper_says(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = MnistCnn().build(shape, 3)
    w1, b1, w2, b2, w3, b3, w4, b4 = network.parameters()
    x = torch.rand(5, *shape)
    h = F.conv2d(x, w1, b1, stride=2, padding=1).relu()
    h = F.conv2d(h, w2, b2, stride=2, padding=1).relu().flatten(1)
    torch.testing.assert_close(network(x), F.linear(F.linear(h, w3, b3).relu(), w4, b4))


@pytest.mark.parametrize(("height", "width"), [(3, 28), (28, 3), (1, 1)])
def test_images_that_vanish_are_refused(height: int, width: int) -> None:
    with pytest.raises(BadInput, match=f"mnist-cnn needs images of at least 4x4 pixels, not {height}x{width}"):
        MnistCnn().build((1, height, width), 10)
