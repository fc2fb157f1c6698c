from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advbench.data.base import Missing
from advbench.data.cifar10_jpeg import CLASSES, Cifar10Jpeg
from advbench.spec import BadInput


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with one image of each class and split."""
    for split in ("train", "test"):
        for n, label in enumerate(CLASSES):
            folder = tmp_path / "cifar10-jpeg" / split / label
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), (n, n, n)).save(folder / "0000.jpg")
    return tmp_path


@pytest.mark.slow
def test_the_real_one(cifar_root: Path) -> None:
    data = Cifar10Jpeg().load(cifar_root)
    assert (data.shape, data.classes) == ((3, 32, 32), 10)
    np.testing.assert_array_equal(data.train.labels, np.repeat(np.arange(10), 50))
    np.testing.assert_array_equal(data.test.labels, np.repeat(np.arange(10), 50))
    ship = cifar_root / "cifar10-jpeg" / "test" / "ship" / "0007.jpg"
    with Image.open(ship) as image:
        np.testing.assert_array_equal(data.test.images[8 * 50 + 7], np.asarray(image).transpose(2, 0, 1))
    # CIFAR-10's own channel means, as near as 500 images come; red and blue swapped are three times as far off.
    means = data.train.images.mean((0, 2, 3)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=0.015)


def test_classes_are_the_official_ones_in_their_order(root: Path) -> None:
    data = Cifar10Jpeg().load(root)
    np.testing.assert_array_equal(data.train.images[:, 0, 0, 0], np.arange(10))
    np.testing.assert_array_equal(data.train.labels, np.arange(10))


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_class_folder_is_named(root: Path, split: str) -> None:
    shutil.rmtree(root / "cifar10-jpeg" / split / "deer")
    line = f"{root / 'cifar10-jpeg' / split}: no class folder 'deer'; CIFAR-10 has airplane, automobile, bird, "
    with pytest.raises(BadInput, match=re.escape(line)):
        Cifar10Jpeg().load(root)


def test_a_folder_too_many_is_refused(root: Path) -> None:
    shutil.copytree(root / "cifar10-jpeg" / "train" / "deer", root / "cifar10-jpeg" / "train" / "elk")
    with pytest.raises(BadInput, match="class folder 'elk' is in only one of train and test"):
        Cifar10Jpeg().load(root)


def test_nothing_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"cifar10-jpeg/train is not there; put CIFAR-10's images there as JPEG files"):
        Cifar10Jpeg().load(tmp_path)
