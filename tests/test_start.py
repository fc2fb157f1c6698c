"""A model before its first step: fits the images, starts from exactly the weights that its job names."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from advbench import find
from advbench.data.base import Missing
from advbench.models.base import Model
from advbench.models.library import Published
from advbench.models.torchvision import Torchvision
from advbench.spec import BadInput
from advbench.start import files, fill, probe, settle, start
from advbench.trial import Unfit, answer

IMAGE = (1, 4, 4)
FILE = {"pretrained": "w.safetensors", "extra_data": "none"}


def named(name: str, **fields: Any) -> Model:
    return find.named(Model, {"name": name, **fields})


def weights(name: str, classes: int = 4, shape: tuple[int, int, int] = IMAGE, **fields: Any) -> dict[str, Tensor]:
    torch.manual_seed(7)
    return named(name, **fields).build(shape, classes).state_dict()


def write(folder: Path, tensors: dict[str, Tensor], name: str = "w.safetensors") -> str:
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name)
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def started(model: Model, root: Path, classes: int = 4, shape: tuple[int, int, int] = IMAGE) -> tuple[nn.Module, Any]:
    torch.manual_seed(1)
    return start(settle(model, root), shape, classes, root)


def refused(model: Model, root: Path, classes: int = 4, shape: tuple[int, int, int] = IMAGE) -> str:
    with pytest.raises(BadInput) as caught:
        started(model, root, classes, shape)
    [line] = caught.value.lines
    return line


def test_a_start_is_the_file_s_weights_and_the_model_knows_their_digest(tmp_path: Path) -> None:
    kept = weights("mlp")
    digest = write(tmp_path, kept)
    model = named("mlp", **FILE)
    network, told = started(model, tmp_path)

    assert settle(model, tmp_path).pretrained_sha256 == digest
    assert files(model, tmp_path) == [tmp_path / "w.safetensors"]
    assert told == {"pretrained_head": "kept"}
    assert network.state_dict().keys() == kept.keys()
    assert all(torch.equal(value, kept[name]) for name, value in network.state_dict().items())


def test_without_pretrained_weights_it_is_build_and_nothing_else(tmp_path: Path) -> None:
    model = named("mlp")
    network, told = started(model, tmp_path)
    torch.manual_seed(1)
    fresh = model.build(IMAGE, 4).state_dict()

    assert settle(model, tmp_path) is model
    assert (files(model, tmp_path), told) == ([], {})
    assert all(torch.equal(value, fresh[name]) for name, value in network.state_dict().items())


def test_a_head_of_other_classes_is_drawn_anew_and_said(tmp_path: Path) -> None:
    kept = weights("mlp", classes=9)
    write(tmp_path, kept)
    network, told = started(named("mlp", **FILE), tmp_path)
    torch.manual_seed(1)
    fresh = named("mlp").build(IMAGE, 4).state_dict()

    assert told == {"pretrained_head": "drawn anew: 4 classes, where the weights have 9"}
    head = {"5.weight", "5.bias"}
    for name, value in network.state_dict().items():
        assert torch.equal(value, (fresh if name in head else kept)[name]), name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w | {"1.weight": torch.zeros(128, 9)}, "1.weight is (128, 9), here (128, 16)"),
        (lambda w: {k: v for k, v in w.items() if k != "3.bias"}, "it lacks 3.bias"),
        (lambda w: w | {"9.bias": torch.zeros(1)}, "9.bias is not in the model"),
        # Narrower inside: no head, although its first size differs.
        (lambda w: w | {"3.weight": torch.zeros(4, 128)}, "3.weight is (4, 128), here (128, 128)"),
        (lambda w: w | {"5.weight": torch.zeros(9, 128)} | {"5.bias": torch.zeros(8)}, "5.weight is (9, 128), here"),
        (lambda w: {f"x.{k}": v for k, v in w.items()}, "it lacks 1.weight; it lacks 1.bias; it lacks 3.weight; and 9"),
    ],
)
def test_weights_that_do_not_fit_are_one_line_with_the_first_tensors(tmp_path: Path, change: Any, said: str) -> None:
    write(tmp_path, change(weights("mlp")))
    line = refused(named("mlp", **FILE), tmp_path)

    assert line.startswith("model.pretrained: w.safetensors does not fit mlp: ")
    assert said in line


def test_a_normalisation_that_the_weights_were_not_trained_with_is_refused(tmp_path: Path) -> None:
    table: dict[str, Any] = {"mean": [0.5], "std": [0.25], "depth": 10, "widen": 1}
    write(tmp_path, weights("wrn-28-10", **table))
    line = refused(named("wrn-28-10", **FILE, **table | {"mean": [0.4]}), tmp_path)
    assert line.endswith("it was trained with mean = [0.5]; write so")

    # A file from elsewhere need not have the constants.
    bare = {name: value for name, value in weights("wrn-28-10", **table).items() if name not in ("0.mean", "0.std")}
    write(tmp_path, bare)
    network, told = started(named("wrn-28-10", **FILE, **table), tmp_path)
    assert told == {"pretrained_head": "kept"}
    assert torch.equal(network.state_dict()["1.weight"], bare["1.weight"])


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"pretrained": "w.safetensors"}, 'pretrained weights need extra_data = "...": what they saw, or "none"'),
        ({"extra_data": "ImageNet-1k"}, "speak of pretrained weights, and there are none"),
        ({"pretrained_sha256": "0" * 64}, "speak of pretrained weights, and there are none"),
        (FILE | {"pretrained": "w.pth"}, "pretrained should be a .safetensors file, not 'w.pth'"),
        (FILE | {"pretrained": "imagenet"}, "pretrained should be a .safetensors file, not 'imagenet'"),
        (FILE | {"pretrained_sha256": "abc"}, "pretrained_sha256: should match pattern"),
        (FILE | {"extra_data": ""}, "extra_data: "),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(BadInput) as caught:
        named("mlp", **fields)
    assert line in caught.value.lines[0]


def test_an_absent_file_is_missing_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"w\.safetensors is not there; put the pretrained weights there"):
        files(named("mlp", **FILE), tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"PK not tensors")
    assert "w.safetensors: is no whole safetensors file: " in refused(named("mlp", **FILE), tmp_path)


def test_a_file_that_nobody_may_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, weights("mlp"))

    def forbidden(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    line = refused(named("mlp", **FILE), tmp_path)
    assert line == f"model.pretrained: {tmp_path / 'w.safetensors'}: cannot be read: Permission denied"


def test_other_weights_than_the_planned_or_pinned_ones_are_refused(tmp_path: Path) -> None:
    digest = write(tmp_path, weights("mlp"))
    planned = settle(named("mlp", **FILE), tmp_path)
    write(tmp_path, weights("mlp", classes=5))

    with pytest.raises(BadInput, match=r"w\.safetensors changed since the plan was made; run again"):
        start(planned, IMAGE, 4, tmp_path)
    with pytest.raises(BadInput, match=r"model\.pretrained_sha256: w\.safetensors has the digest [0-9a-f]{64}"):
        settle(named("mlp", **FILE, pretrained_sha256=digest), tmp_path)


def test_a_library_s_own_file_fits_its_network(tmp_path: Path) -> None:
    theirs = timm.create_model("test_vit", num_classes=4, in_chans=1, img_size=4, patch_size=2).state_dict()
    write(tmp_path, theirs)
    table: dict[str, Any] = {"mean": [0.5], "std": [0.25], "patch_size": 2}
    network, told = started(named("timm:test_vit", **FILE, **table), tmp_path)

    assert told == {"timm": timm.__version__, "pretrained_head": "kept"}
    assert all(torch.equal(network.state_dict()[f"1.{name}"], value) for name, value in theirs.items())


NET = "shufflenet_v2_x0_5"
IMAGENET: dict[str, Any] = {"pretrained": "imagenet", "extra_data": "ImageNet-1k"}


def test_published_weights_bring_their_normalisation_and_give_up_their_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = models.get_model(NET, weights=None).state_dict()
    monkeypatch.setattr(Torchvision, "download", lambda self: Published(theirs, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    settled = settle(named(f"torchvision:{NET}", **IMAGENET, std=[0.25]), tmp_path)
    again = find.named(Model, find.plain(settled))

    # What the task says itself stays.
    assert (settled.mean, settled.std) == ((0.1, 0.2, 0.3), (0.25,))
    assert len(settled.pretrained_sha256 or "") == 64
    network, told = start(again, (3, 96, 96), 4, tmp_path)
    assert told["pretrained_head"] == "drawn anew: 4 classes, where the weights have 1000"
    assert torch.equal(network.state_dict()["1.conv1.0.weight"], theirs["conv1.0.weight"])

    strided = models.resnet18().state_dict()
    monkeypatch.setattr(Torchvision, "download", lambda self: Published(strided, (0.5,), (0.5,)))
    line = refused(named("torchvision:resnet18", **IMAGENET), tmp_path, shape=(3, 32, 32))
    assert ": 1.conv1.weight is (64, 3, 7, 7), here (64, 3, 3, 3); " in line
    assert line.endswith('; stem = "original" keeps the first layers as the library has them')
    assert started(named("torchvision:resnet18", **IMAGENET, stem="original"), tmp_path, shape=(3, 32, 32))[0]


def test_published_weights_that_cannot_be_had_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: Torchvision) -> Published:
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(Torchvision, "download", offline)
    with pytest.raises(Missing) as caught:
        settle(named(f"torchvision:{NET}", **IMAGENET), tmp_path)
    assert str(caught.value).startswith(f"the imagenet weights of torchvision:{NET} cannot be had here (OSError: Name")
    assert "\n" not in str(caught.value)


class Odd(Model):
    name = "odd"
    about = "answers with whatever it is told"
    answer: str = "tuple"

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        kind = self.answer

        class Network(nn.Module):
            def forward(self, x: Tensor) -> Any:
                logits = x.flatten(1)[:, :classes]
                return {"tuple": (logits, logits), "wide": x.flatten(1), "nan": logits / 0 - logits / 0}[kind]

        return Network()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("tuple", "it answers with tuple, not with logits of (2, 4)"),
        ("wide", "it answers with (2, 16), not with logits of (2, 4)"),
        ("nan", "its logits are not finite"),
    ],
)
def test_an_answer_that_is_no_logits_is_refused(tmp_path: Path, answer: str, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        probe(Odd(answer=answer), IMAGE, 4, tmp_path)
    assert f"model.name: odd does not fit images of (1, 4, 4): {said}; take another model" in caught.value.lines[0]


def test_the_layer_at_which_images_get_stuck_is_named(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    with pytest.raises(BadInput, match=r"at 1\.features\.\d+ \(MaxPool2d\): .*Output size is too small; take another"):
        probe(named("torchvision:vgg11", mean=[0.5], std=[0.25]), (1, 28, 28), 10, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_whole_file_has_the_head_and_the_constants_too() -> None:
    table: dict[str, Any] = {"mean": [0.5], "std": [0.25], "depth": 10, "widen": 1}
    others: dict[str, Any] = table | {"mean": [0.4]}
    network = named("wrn-28-10", **table).build(IMAGE, 4)

    assert fill(network, weights("wrn-28-10", **others), 4, whole=True) == "kept"
    assert network.state_dict()["0.mean"].flatten().tolist() == pytest.approx([0.4])
    with pytest.raises(BadInput, match=r"is \(9, 64\), here \(4, 64\)"):
        fill(network, weights("wrn-28-10", classes=9, **table), 4, whole=True)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError


def test_where_images_get_stuck_is_the_last_layer_that_was_reached_and_looking_leaves_no_trace() -> None:
    x = torch.rand(2, 4)
    good = nn.Sequential(nn.Sequential(nn.Linear(4, 3)))
    stuck = nn.Sequential(nn.Sequential(nn.Linear(4, 3), Fails()), nn.Linear(3, 3))

    assert torch.equal(answer(good, x, 3), good(x))
    with pytest.raises(Unfit, match=r"^at 0\.1 \(Fails\): ValueError$"):
        answer(stuck, x, 3)
    with pytest.raises(Unfit, match=r"^at the start: ValueError$"):
        answer(Fails(), x, 3)
    assert not any(module._forward_pre_hooks for network in (good, stuck) for module in network.modules())
