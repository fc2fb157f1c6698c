from __future__ import annotations

import pytest
import torch
from peers import architecture
from pydantic import ValidationError
from torch import nn

from advbench.models.base import Normalize
from advbench.models.preact_resnet18 import PreActResNet18
from advbench.spec import BadInput, validate


def test_parameters() -> None:
    def block(before: int, width: int) -> int:
        projection = 0 if before == width else before * width
        return 2 * before + 9 * before * width + 2 * width + 9 * width * width + projection

    stages = sum(block(a, b) for a, b in [(64, 64), (64, 64), (64, 128), (128, 128)])
    stages += sum(block(a, b) for a, b in [(128, 256), (256, 256), (256, 512), (512, 512)])
    stem, last_norm, linear = 3 * 9 * 64, 2 * 512, 512 * 10 + 10
    # Without the last BN-ReLU, as some public copies have it, the network has 11,171,146.
    assert stem + stages + linear == 11_171_146
    count = sum(p.numel() for p in PreActResNet18().build((3, 32, 32), 10).parameters())
    assert count == stem + stages + last_norm + linear == 11_172_170


def test_eighteen_layers() -> None:
    network = PreActResNet18().build((3, 32, 32), 10)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(m.kernel_size == (3, 3) for m in convolutions) + 1 == 18
    assert sum(m.kernel_size == (1, 1) for m in convolutions) == 3


def test_it_computes_what_robustbenchs_does() -> None:
    """The same weights give the same logits in the field's own network of this name (with its last BN)."""
    module = architecture("resnet")
    torch.manual_seed(0)
    theirs = module.PreActResNet(module.PreActBlock, [2, 2, 2, 2], bn_before_fc=True, out_shortcut=True)
    for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
        # Fresh norms are all alike, so one in the wrong place would go unnoticed.
        for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
            assert tensor is not None
            tensor.uniform_(0.5, 1.5)
    ours = PreActResNet18().build((3, 32, 32), 10)
    names = [name for name in ours.state_dict() if name not in ("0.mean", "0.std")]
    weights = dict(zip(names, theirs.state_dict().values(), strict=True))
    missing, unexpected = ours.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["0.mean", "0.std"], [])
    x = torch.rand(3, 3, 32, 32)
    pixels = Normalize((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))(x)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(pixels), rtol=1e-5, atol=1e-5)


def test_the_normalisation_is_inside() -> None:
    torch.manual_seed(0)
    whole = PreActResNet18(mean=(0.5,), std=(0.1, 0.2, 0.4)).build((3, 8, 8), 10).double().eval()
    assert isinstance(whole, nn.Sequential)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    z = ((x - 0.5) / torch.tensor([0.1, 0.2, 0.4]).view(1, 3, 1, 1)).detach().requires_grad_()
    [to_pixels] = torch.autograd.grad(whole(x).logsumexp(1).sum(), x)
    [to_normalised] = torch.autograd.grad(whole[1:](z).logsumexp(1).sum(), z)
    std = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64).view(1, 3, 1, 1)
    torch.testing.assert_close(to_pixels, to_normalised / std, rtol=1e-5, atol=1e-8)


def test_grey_images_need_their_own_constants() -> None:
    with pytest.raises(BadInput, match=r"model\.mean: 3 values, but the images have 1 channel"):
        PreActResNet18().build((1, 28, 28), 10)
    with pytest.raises(BadInput, match=r"model\.std: 3 values, but the images have 1 channel"):
        PreActResNet18(mean=(0.5,)).build((1, 28, 28), 10)


@pytest.mark.parametrize("std", [[0.0], [-1.0], []])
def test_a_deviation_is_above_zero(std: list[float]) -> None:
    with pytest.raises(ValidationError, match="std"):
        validate(PreActResNet18, {"std": std})
