"""Torchvision's networks and its published weights, as models of ours."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from advbench import find
from advbench.models.base import Model
from advbench.models.library import Published
from advbench.models.torchvision import Torchvision
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


def test_a_network_that_asks_for_the_dicts_of_torch_save_takes_plain_ones() -> None:
    network = build("mnasnet0_5", (3, 32, 32))
    kept = {name: value + 1 for name, value in network.state_dict().items()}
    again = copy.deepcopy(network)
    again.load_state_dict(kept)
    assert all(torch.equal(value, kept[name]) for name, value in again.state_dict().items())
    assert not torch.equal(network.state_dict()["1.layers.0.weight"], kept["1.layers.0.weight"])


def downloaded(arch: str, file: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Published:
    """What becomes of a published `file`."""
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda *_, **__: dict(file))
    model = find.named(Model, {"name": f"torchvision:{arch}"})
    assert isinstance(model, Torchvision)
    return model.download()


def as_published(name: str) -> str:
    """A tensor's name in the files of densenets and vision transformers, which are older than today's networks."""
    name = name.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")
    return re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", name)


@pytest.mark.parametrize("arch", ["densenet121", "vit_b_16"])
def test_a_published_file_of_old_names_gets_the_network_s(arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.device("meta"):
        ours = models.get_model(arch).state_dict()
    file = {as_published(name): value for name, value in ours.items()}
    assert file.keys() != ours.keys()
    assert downloaded(arch, file, monkeypatch).weights.keys() == ours.keys()


def test_a_published_file_is_checked_read_as_tensors_alone_and_without_its_side_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []
    file = dict.fromkeys(("conv1.conv.weight", "aux1.conv.weight", "aux2.fc1.bias", "AuxLogits.fc.bias"), torch.ones(1))
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", lambda _, **how: asked.append(how) or file)
    model = find.named(Model, {"name": "torchvision:googlenet"})
    assert isinstance(model, Torchvision)

    assert model.download().weights.keys() == {"conv1.conv.weight"}
    assert asked == [{"progress": False, "check_hash": True, "weights_only": True}]
    usual = downloaded("resnet18", {}, monkeypatch)
    assert (usual.mean, usual.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(("arch", "kind"), [("googlenet", models.GoogLeNet), ("inception_v3", models.Inception3)])
def test_weights_that_torchvision_moves_pixels_for_bring_that_normalisation(
    arch: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, own = downloaded("resnet18", {}, monkeypatch), downloaded(arch, {}, monkeypatch)
    x = torch.rand(2, 3, 4, 4)

    def normal(by: Published) -> Tensor:
        return (x - torch.tensor(by.mean).view(3, 1, 1)) / torch.tensor(by.std).view(3, 1, 1)

    # As torchvision's own loader sets it.
    theirs = kind._transform_input(SimpleNamespace(transform_input=True), normal(usual))
    torch.testing.assert_close(normal(own), theirs)
