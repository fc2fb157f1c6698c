from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from advbench import find
from advbench.models.base import Model
from advbench.spec import BadInput


def build(name: str, shape: tuple[int, int, int], classes: int = 7) -> nn.Module:
    return find.named(Model, {"name": f"torchvision:{name}", "mean": [0.5], "std": [0.25]}).build(shape, classes)


@pytest.mark.parametrize("name", ["alexnet", "densenet121", "efficientnet_b0", "mobilenet_v3_small", "squeezenet1_1"])
def test_one_of_each_kind_takes_small_images(name: str) -> None:
    for shape in ((3, 32, 32), (1, 28, 28)):
        assert build(name, shape).eval()(torch.rand(2, *shape)).shape == (2, 7)


def test_outside_the_stem_it_is_torchvision_s_network() -> None:
    torch.manual_seed(0)
    ours = build("resnet18", (3, 96, 96), 10)
    assert isinstance(ours, nn.Sequential)
    theirs = models.resnet18(num_classes=10)
    theirs.load_state_dict(ours[1].state_dict())
    x = torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()((x - 0.5) / 0.25))


def test_a_network_of_several_heads_answers_with_one() -> None:
    network = build("googlenet", (3, 32, 32)).train()
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "shape", "line"),
    [
        ("vit_b_16", (1, 28, 28), "Input shape indivisible by patch size!; take another model"),
        ("vit_b_16", (3, 16, 32), "it takes square images only; take another model"),
        ("maxvit_t", (3, 32, 32), "not divisible by partition size 7"),
    ],
)
def test_what_a_constructor_refuses_is_one_line(name: str, shape: tuple[int, int, int], line: str) -> None:
    with pytest.raises(
        BadInput, match=f"model.name: torchvision:{name} cannot be built for images of .*{line}"
    ) as told:
        build(name, shape)
    assert len(told.value.lines) == 1
