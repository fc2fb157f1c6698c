from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from advbench.data.base import Missing
from advbench.data.imagenet import ImageNet
from advbench.spec import BadInput

WNIDS = ("n01440764", "n01443537", "n02119789")
SHAPES = ((75, 100), (120, 80), (64, 64))
"""Height and width of each class's image."""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with an ImageNet of three classes, of one JPEG each in train and val, each of another size."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for wnid, shape in zip(WNIDS, SHAPES, strict=True):
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)).save(folder / f"{wnid}_1.JPEG")
    monkeypatch.setattr(ImageNet, "classes", 3)
    return tmp_path


@pytest.mark.parametrize(("size", "short"), [(224, 256), (32, 37)])
def test_pixels_are_torchvision_s_and_val_is_the_test_split(root: Path, size: int, short: int) -> None:
    data = ImageNet(size=size).load(root)
    assert (data.shape, data.classes) == ((3, size, size), 3)
    np.testing.assert_array_equal(data.test.labels, [0, 1, 2])
    for i, wnid in enumerate(WNIDS):
        with Image.open(root / "imagenet" / "val" / wnid / f"{wnid}_1.JPEG") as image:
            expected = np.asarray(CenterCrop(size)(Resize(short)(image)))
        np.testing.assert_array_equal(data.test.images[i], expected.transpose(2, 0, 1))


def test_the_size_is_224_unless_said() -> None:
    assert ImageNet().size == 224


def test_a_grey_file_is_spread_over_the_channels(root: Path) -> None:
    path = root / "imagenet" / "train" / WNIDS[0] / f"{WNIDS[0]}_1.JPEG"
    Image.open(path).convert("L").save(path)
    image = ImageNet(size=16).load(root).train.images[0]
    assert image.shape == (3, 16, 16)
    assert (image == image[0]).all()


def test_a_class_that_is_missing_in_one_split_is_named(root: Path) -> None:
    shutil.rmtree(root / "imagenet" / "val" / WNIDS[1])
    with pytest.raises(BadInput, match=re.escape(f"class folder '{WNIDS[1]}' is in only one of train and val")):
        ImageNet().load(root)


def test_a_part_of_imagenet_is_not_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(BadInput, match='3 class folders, but ImageNet has 1,000; a part of it is an "image-folder"'):
        ImageNet().load(root)


def test_it_is_not_downloaded_but_the_way_to_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"imagenet/train is not there; get ILSVRC 2012 from https://image-net\.org"):
        ImageNet().load(tmp_path)
