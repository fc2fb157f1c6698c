from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from advbench import find
from advbench.models import timm as ours
from advbench.models.base import Model
from advbench.models.timm import Timm
from advbench.spec import BadInput

VIT = "vit_tiny_patch16_224"


def build(name: str, shape: tuple[int, int, int], classes: int = 7, **fields: Any) -> nn.Module:
    table = {"name": f"timm:{name}", "mean": [0.5], "std": [0.25], **fields}
    return find.named(Model, table).build(shape, classes)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050", "nf_resnet26", VIT])
def test_one_of_each_kind_takes_small_images(name: str) -> None:
    for shape in ((3, 32, 32), (1, 28, 28), (1, 8, 8)):
        assert build(name, shape).eval()(torch.rand(2, *shape)).shape == (2, 7)


def test_a_convolutional_network_keeps_the_size_through_its_stem() -> None:
    network = build("resnet10t", (3, 32, 32))
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    assert (first.stride, first.kernel_size) == ((1, 1), (3, 3))
    assert not any(isinstance(m, nn.MaxPool2d) for m in network.modules())


@pytest.mark.parametrize(
    ("shape", "fields", "patch", "tokens"),
    [
        ((3, 32, 32), {}, 4, 64),
        ((1, 8, 8), {}, 4, 4),
        ((1, 8, 8), {"patch_size": 2}, 2, 16),
        ((3, 32, 32), {"stem": "original"}, 16, 4),
        ((3, 64, 64), {}, 16, 16),
        ((3, 64, 64), {"patch_size": 8}, 8, 64),
    ],
)
def test_a_transformer_s_patches_are_fitted(
    shape: tuple[int, int, int], fields: dict[str, Any], patch: int, tokens: int
) -> None:
    network = build(VIT, shape, **fields)
    assert isinstance(network, nn.Sequential)
    weights = network.state_dict()
    assert weights["1.patch_embed.proj.weight"].shape == (192, shape[0], patch, patch)
    assert weights["1.pos_embed"].shape == (1, 1 + tokens, 192)


def test_outside_the_stem_it_is_timm_s_network() -> None:
    torch.manual_seed(0)
    ours = build(VIT, (3, 32, 32), 10)
    assert isinstance(ours, nn.Sequential)
    theirs = timm.create_model(VIT, num_classes=10, img_size=32, patch_size=4)
    theirs.load_state_dict(ours[1].state_dict())
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()((x - 0.5) / 0.25), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [f"timm:{VIT}", "torchvision:vit_b_16"])
def test_attention_has_a_second_derivative(name: str) -> None:
    torch.manual_seed(0)
    network = find.named(Model, {"name": name}).build((3, 32, 32), 5).eval()
    head = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    nn.init.normal_(head.weight)  # torchvision's starts at 0, and then nothing depends on the image
    x = torch.rand(2, 3, 32, 32, requires_grad=True)
    [gradient] = torch.autograd.grad(network(x).logsumexp(1).sum(), x, create_graph=True)
    [second] = torch.autograd.grad(gradient.square().sum(), x)
    assert second.isfinite().all()
    assert second.any()


def test_a_patch_size_where_there_are_no_patches_is_refused() -> None:
    with pytest.raises(BadInput, match=r"timm:resnet10t cannot be built .* unexpected keyword argument 'img_size'"):
        build("resnet10t", (3, 32, 32), patch_size=2)


def test_published_weights_come_with_the_normalisation_of_their_own_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = nn.Linear(2, 1)
    network.pretrained_cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}  # pyright: ignore
    asked: list[Any] = []
    package = SimpleNamespace(create_model=lambda *given, **how: asked.append((given, how)) or network)
    model = find.named(Model, {"name": f"timm:{VIT}"})
    monkeypatch.setattr(ours, "_timm", lambda: package)

    assert isinstance(model, Timm)
    found = model.download()

    assert asked == [((VIT,), {"pretrained": True})]
    assert found.weights.keys() == {"weight", "bias"}
    assert (found.mean, found.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_of_its_import_nobody_hears_what_no_user_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def grumble(name: str) -> str:
        for kind in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.warn(kind.__name__, kind, stacklevel=1)
        return name

    monkeypatch.setattr(ours.importlib, "import_module", grumble)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        assert ours._timm() == "timm"

    assert [str(one.message) for one in heard] == ["UserWarning"]
