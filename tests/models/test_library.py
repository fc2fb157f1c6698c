"""The stem of a library's network on small images, and what every such network gives up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from advbench import find
from advbench.models.base import Model, Shape
from advbench.models.library import Library, fit
from advbench.spec import BadInput


def named(name: str, **fields: object) -> Model:
    return find.named(Model, {"name": name, "mean": [0.5], "std": [0.25], **fields})


def sides(network: nn.Module, shape: tuple[int, int, int], *kinds: type[nn.Module]) -> list[int]:
    """The side of the image behind each layer of these kinds, in the order of the forward pass."""
    found: list[int] = []
    for module in network.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _m, _i, out: found.append(out.shape[-1]))
    with torch.no_grad():
        network.eval()(torch.rand(1, *shape))
    return found


@pytest.mark.parametrize(("shape", "last"), [((3, 32, 32), 4), ((1, 28, 28), 4), ((2, 8, 8), 1)])
def test_a_small_image_keeps_its_size_through_the_stem(shape: tuple[int, int, int], last: int) -> None:
    network = named("torchvision:resnet18").build(shape, 10)
    found = sides(network, shape, nn.Conv2d)

    assert (found[0], found[1], found[-1]) == (shape[1], shape[1], last)
    assert not any(isinstance(m, nn.MaxPool2d) for m in network.modules())


@pytest.mark.parametrize(("side", "stem"), [(64, "auto"), (32, "original")])
def test_from_64_pixels_on_or_when_asked_the_stem_is_the_library_s(side: int, stem: str) -> None:
    network = named("torchvision:resnet18", stem=stem).build((3, side, side), 10)

    assert sides(network, (3, side, side), nn.Conv2d)[:2] == [side // 2, side // 4]
    assert sum(p.numel() for p in network.parameters()) == 11_689_512 - 990 * 513


def test_only_the_pool_of_a_strided_stem_goes() -> None:
    vgg = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, stride=2))
    fit(vgg, 3, small=True)
    assert [type(m) for m in vgg] == [nn.Conv2d, nn.MaxPool2d, nn.Conv2d]

    late = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3, stride=2), nn.MaxPool2d(2))
    kept = late[0].weight
    fit(late, 3, small=True)
    assert (late[0].stride, late[0].padding, late[1].stride) == ((1, 1), (1, 1), (2, 2))
    assert late[0].weight is kept, "a 3x3 kernel fits as it is"
    assert isinstance(late[2], nn.MaxPool2d)

    deep = nn.Sequential(nn.Conv2d(3, 4, 7, stride=2), nn.Conv2d(4, 4, 3), nn.MaxPool2d(3, 2), nn.MaxPool2d(2))
    fit(deep, 5, small=True)
    assert deep[0].weight.shape == (4, 5, 3, 3)
    assert [type(m) for m in deep] == [nn.Conv2d, nn.Conv2d, nn.Identity, nn.MaxPool2d]


def test_another_number_of_channels_changes_the_first_convolution_only() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 7, stride=2), nn.MaxPool2d(2))
    fit(network, 1, small=False)

    assert (network[0].weight.shape, network[0].stride) == ((4, 1, 7, 7), (2, 2))
    assert isinstance(network[1], nn.MaxPool2d)


def test_a_first_layer_is_fitted_whatever_its_kernel_its_groups_and_its_strides() -> None:
    wide = nn.Sequential(nn.Conv2d(3, 4, (5, 3)))
    fit(wide, 1, small=True)
    assert (wide[0].weight.shape, wide[0].in_channels, wide[0].kernel_size) == ((4, 1, 5, 3), 1, (5, 3))

    grouped = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3))
    fit(grouped, 6, small=True)
    assert grouped[0].weight.shape == (6, 2, 3, 3)

    aslant = nn.Sequential(nn.Conv2d(3, 4, 3, stride=(1, 2)), nn.MaxPool2d((1, 2)))
    fit(aslant, 3, small=True)
    assert aslant[0].stride == (1, 1)
    assert isinstance(aslant[1], nn.Identity)


def test_a_kernel_that_is_drawn_anew_is_drawn_as_torch_draws_it() -> None:
    network: Any = nn.Sequential(nn.Conv2d(3, 64, 7, stride=2))
    torch.manual_seed(0)
    fit(network, 5, small=True)
    torch.manual_seed(0)
    fresh = nn.Conv2d(5, 64, 3)

    assert torch.equal(network[0].weight, fresh.weight)


def test_networks_that_do_not_begin_with_a_convolution_stay_as_they_are() -> None:
    for layers in ((nn.Flatten(), nn.Linear(4, 2)), (nn.MaxPool2d(2), nn.Conv2d(3, 4, 7, stride=2))):
        network = nn.Sequential(*layers)
        fit(network, 1, small=True)
        assert [*network] == [*layers]
        assert not isinstance(layers[1], nn.Conv2d) or layers[1].stride == (2, 2)


class Stubborn(Library):
    """A library whose constructors refuse without a word."""

    name = "stubborn"
    about = "none"
    arch = "one"

    def make(self, shape: Shape, classes: int) -> tuple[nn.Module, bool]:
        raise KeyError


def test_the_shorter_side_decides_whether_an_image_is_small() -> None:
    assert [Stubborn().fits((3, *sides)) for sides in ((63, 99), (99, 63), (64, 64), (64, 99))] == [
        True,
        True,
        False,
        False,
    ]
    assert not Stubborn(stem="original").fits((3, 8, 8))


def test_a_constructor_that_refuses_without_a_word_is_quoted_by_the_name_of_its_error() -> None:
    with pytest.raises(BadInput) as caught:
        Stubborn().build((3, 8, 8), 2)
    line = "model.name: stubborn cannot be built for images of (3, 8, 8): KeyError; take another model"
    assert caught.value.lines == (line,)


def test_a_chosen_network_is_one_class_whose_table_makes_it_again() -> None:
    made = named("torchvision:shufflenet_v2_x0_5")

    assert isinstance(made, Library)
    assert (made.name, made.arch) == ("torchvision:shufflenet_v2_x0_5", "shufflenet_v2_x0_5")
    assert find.part(Model, made.name) is type(made)
    assert find.named(Model, find.plain(made)) == made


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("torchvision:resnet81", r"no model 'torchvision:resnet81'; did you mean 'torchvision:resnet18'\?"),
        ("torchvision:fasterrcnn_resnet50_fpn", "no model 'torchvision:fasterrcnn_resnet50_fpn'; "),
        ("timm:resnet18.b9_in1k", r"did you mean 'timm:resnet18\."),
        ("timm:%%%%", r"no model 'timm:%%%%'; there are \d{4}, see its manual"),
        ("timm:", "no model 'timm:'; there are"),
        ("torchvision", 'name one of its networks: name = "torchvision:resnet18"'),
        ("linear:resnet18", "no model 'linear:resnet18'; did you mean"),
        ("torch:resnet18", "no model 'torch:resnet18'; did you mean"),
        ("torchvision:resnet18:", "no model 'torchvision:resnet18:'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, line: str) -> None:
    with pytest.raises(BadInput, match=line) as caught:
        find.named(Model, {"name": name})
    assert len(caught.value.lines) == 1


def test_grey_images_need_their_own_constants() -> None:
    with pytest.raises(BadInput, match=r"model\.mean: 3 values, but the images have 1 channel"):
        find.named(Model, {"name": "torchvision:resnet18"}).build((1, 28, 28), 10)
