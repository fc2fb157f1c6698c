from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from advbench import find
from advbench.models.base import Model, Normalize, per_channel
from advbench.models.linear import Linear
from advbench.spec import BadInput

MEAN, STD = (0.5, 0.25), (0.5, 2.0)


def test_normalize_is_per_channel() -> None:
    x = torch.tensor([0.5, 1.0]).view(1, 2, 1, 1).expand(3, 2, 4, 5)
    out = Normalize(MEAN, STD)(x)
    assert out.shape == x.shape
    assert torch.equal(out[:, 0], torch.zeros(3, 4, 5))
    assert torch.equal(out[:, 1], torch.full((3, 4, 5), 0.375))


def test_the_input_gradient_is_divided_by_std() -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(27, 1)).double()
    whole = nn.Sequential(Normalize(MEAN, STD).double(), inner)
    x = torch.rand(4, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    z = whole[0](x).detach().requires_grad_()
    [to_pixels] = torch.autograd.grad(whole(x).sum(), x)
    [to_normalised] = torch.autograd.grad(inner(z).sum(), z)
    torch.testing.assert_close(to_pixels, to_normalised / torch.tensor(STD, dtype=torch.float64).view(1, 2, 1, 1))


def test_the_constants_travel_with_the_weights_and_are_not_trained() -> None:
    module = Normalize(MEAN, STD)
    assert set(module.state_dict()) == {"mean", "std"}
    assert list(module.parameters()) == []


def test_one_value_stands_for_all_channels() -> None:
    assert per_channel((0.5,), 3, "mean") == (0.5, 0.5, 0.5)
    assert per_channel((0.1, 0.2, 0.3), 3, "mean") == (0.1, 0.2, 0.3)


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(BadInput, match=r"model\.std: 3 values, but the images have 1 channel; .* std = \[0\.5\]"):
        per_channel((0.1, 0.2, 0.3), 1, "std")
    with pytest.raises(BadInput, match=r"model\.mean: 2 values, but the images have 3 channels; "):
        per_channel((0.1, 0.2), 3, "mean")


FILE, SEEN, HASH = {"pretrained": "a.safetensors"}, {"extra_data": "none"}, {"pretrained_sha256": 64 * "a"}
SILENT = 'pretrained weights need extra_data = "...": what they saw, or "none"'
IDLE = "extra_data and pretrained_sha256 speak of pretrained weights, and there are none"


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        *((FILE, SILENT), (FILE | HASH, SILENT), (SEEN, IDLE), (HASH, IDLE), (SEEN | HASH, IDLE)),
        ({"pretrained": "a.pt"} | SEEN, "pretrained should be a .safetensors file, not 'a.pt'"),
        ({"pretrained": "imagenet"} | SEEN, "pretrained should be a .safetensors file, not 'imagenet'"),
    ],
)
def test_pretrained_weights_are_a_file_and_say_what_they_saw(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Linear(**fields)
    assert [error["msg"] for error in caught.value.errors()] == [f"Value error, {line}"]


def test_weights_that_say_what_they_saw_are_taken_with_and_without_their_digest() -> None:
    assert Linear(**FILE, **SEEN).pretrained == "a.safetensors"
    assert Linear(**FILE, **SEEN, **HASH).pretrained_sha256 == 64 * "a"
    assert Linear().pretrained is None


def test_a_library_s_own_weights_are_named_by_a_word() -> None:
    named = {"name": "torchvision:resnet18", **SEEN}

    assert find.named(Model, {**named, "pretrained": "imagenet"}).pretrained == "imagenet"
    assert find.named(Model, {**named, **FILE}).pretrained == "a.safetensors"
    with pytest.raises(BadInput, match=r"a \.safetensors file or \"imagenet\", not 'cifar'"):
        find.named(Model, {**named, "pretrained": "cifar"})
