from __future__ import annotations

import pytest
import torch
from peers import architecture
from torch import nn

from advbench.models.base import Normalize
from advbench.models.resnet18 import ResNet18
from advbench.spec import BadInput


@pytest.mark.parametrize("width", [64, 8])
def test_parameters(width: int) -> None:
    def block(before: int, width: int) -> int:
        projection = 0 if before == width else before * width + 2 * width
        return 9 * before * width + 2 * width + 9 * width * width + 2 * width + projection

    stages = sum(block(a * width, b * width) for a, b in [(1, 1), (1, 1), (1, 2), (2, 2)])
    stages += sum(block(a * width, b * width) for a, b in [(2, 4), (4, 4), (4, 8), (8, 8)])
    count = 3 * 9 * width + 2 * width + stages + 8 * width * 10 + 10
    network = ResNet18(width=width).build((3, 32, 32), 10)
    assert sum(p.numel() for p in network.parameters()) == count
    assert width != 64 or count == 11_173_962
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) + 1 == 18
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3


@pytest.mark.parametrize(("shape", "side"), [((3, 32, 32), 4), ((1, 28, 28), 4)])
def test_three_stages_halve_the_image(shape: tuple[int, int, int], side: int) -> None:
    network = ResNet18(mean=(0.5,), std=(0.25,)).build(shape, 10).eval()
    seen: list[torch.Size] = []
    pool = next(m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
    pool.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape))
    assert network(torch.rand(2, *shape)).shape == (2, 10)
    assert seen == [(2, 512, side, side)]


def test_it_computes_what_robustbenchs_does() -> None:
    """The same weights give the same logits in the field's own network of this name."""
    module = architecture("resnet")
    torch.manual_seed(0)
    theirs = module.ResNet(module.BasicBlock, [2, 2, 2, 2])
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
        # Fresh norms are all alike, so one in the wrong place would go unnoticed.
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 1.5)
    ours = ResNet18().build((3, 32, 32), 10)
    names = [name for name in ours.state_dict() if name not in ("0.mean", "0.std")]
    ours.load_state_dict(dict(zip(names, theirs.state_dict().values(), strict=True)), strict=False)
    x = torch.rand(3, 3, 32, 32)
    pixels = Normalize((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))(x)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(pixels), rtol=1e-5, atol=1e-5)


def test_grey_images_need_their_own_constants() -> None:
    with pytest.raises(BadInput, match=r"model\.mean: 3 values, but the images have 1 channel"):
        ResNet18().build((1, 28, 28), 10)
