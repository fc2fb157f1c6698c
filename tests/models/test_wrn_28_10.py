from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from peers import architecture
from pydantic import ValidationError
from torch import nn

from advbench.models.base import Normalize
from advbench.models.wrn_28_10 import Wrn2810
from advbench.spec import validate


def test_parameters_of_the_real_one() -> None:
    def stage(before: int, width: int, blocks: int) -> int:
        first = 2 * before + 9 * before * width + 2 * width + 9 * width * width + before * width
        return first + (blocks - 1) * (4 * width + 18 * width * width)

    widths = [16, 160, 320, 640]
    stages = sum(stage(a, b, 4) for a, b in pairwise(widths))
    count = 3 * 9 * 16 + stages + 2 * 640 + 640 * 10 + 10
    with torch.device("meta"):  # shapes without the 36 million numbers
        network = Wrn2810().build((3, 32, 32), 10)
    assert sum(p.numel() for p in network.parameters()) == count == 36_479_194
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    # Stem, two a block, and the paper's count has the three shortcuts: 1 + 24 + 3.
    assert len(convolutions) == 28


@pytest.mark.parametrize(("shape", "side"), [((3, 32, 32), 8), ((1, 28, 28), 7)])
def test_two_stages_halve_the_image(shape: tuple[int, int, int], side: int) -> None:
    network = Wrn2810(depth=10, widen=1, mean=(0.5,), std=(0.25,)).build(shape, 10).eval()
    seen: list[torch.Size] = []
    pool = next(m for m in network.modules() if isinstance(m, nn.AdaptiveAvgPool2d))
    pool.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape))
    assert network(torch.rand(2, *shape)).shape == (2, 10)
    assert seen == [(2, 64, side, side)]


def test_it_computes_what_robustbenchs_does() -> None:
    """The same weights give the same logits in the network that the field's board runs under this name."""
    module = architecture("wide_resnet")
    torch.manual_seed(0)
    theirs = module.WideResNet(depth=16, widen_factor=2)
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
        # Fresh norms are all alike, so one in the wrong place would go unnoticed.
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 1.5)
    ours = Wrn2810(depth=16, widen=2).build((3, 32, 32), 10)
    names = [name for name in ours.state_dict() if name not in ("0.mean", "0.std")]
    # They declare a block's norms and convolutions in the order of the forward pass, like us.
    ours.load_state_dict(dict(zip(names, theirs.state_dict().values(), strict=True)), strict=False)
    x = torch.rand(3, 3, 32, 32)
    pixels = Normalize((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))(x)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(pixels), rtol=1e-5, atol=1e-5)


def test_convolutions_start_as_the_paper_s_and_the_head_without_bias() -> None:
    torch.manual_seed(0)
    network = Wrn2810(depth=10, widen=4).build((3, 32, 32), 10)
    assert isinstance(network, nn.Sequential)
    wide = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.weight.numel() > 10_000]
    assert len(wide) >= 5
    for layer in wide:
        fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels
        assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    head = network[-1]
    assert isinstance(head, nn.Linear)
    assert torch.equal(head.bias, torch.zeros(10))


@pytest.mark.parametrize(("field", "value"), [("depth", 12), ("depth", 4), ("widen", 0)])
def test_a_depth_without_whole_blocks_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValidationError, match=field):
        validate(Wrn2810, {field: value})
