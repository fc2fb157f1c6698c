from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from advbench.data.base import Missing
from advbench.data.tiny_imagenet import TinyImageNet
from advbench.spec import BadInput

WNIDS = ("n02124075", "n04067472", "n04540053")
ANNOTATED = (2, 0, 1, 2)
"""The class of each test image."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a Tiny ImageNet of three classes, laid out as the archive unpacks."""
    folder = tmp_path / "tiny-imagenet-200"
    for c, wnid in enumerate(WNIDS):
        images = folder / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (64, 64), (10 * c, i, 0)).save(images / f"{wnid}_{i}.JPEG")
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t62\t63\t63\n")
    (folder / "wnids.txt").write_text("\n".join(WNIDS[::-1]))  # the real list is in no order either
    (folder / "val" / "images").mkdir(parents=True)
    for i in range(len(ANNOTATED)):
        Image.new("RGB", (64, 64), (0, 0, 50 * i)).save(folder / "val" / "images" / f"val_{i}.JPEG")
    lines = [f"val_{i}.JPEG\t{WNIDS[c]}\t0\t32\t44\t62\n" for i, c in enumerate(ANNOTATED)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return tmp_path


def test_classes_are_in_the_order_of_their_wnids_and_test_images_in_the_annotated_one(root: Path) -> None:
    data = TinyImageNet().load(root)
    assert (data.shape, data.classes) == ((3, 64, 64), 3)
    np.testing.assert_array_equal(data.train.labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(data.test.labels, ANNOTATED)
    # JPEG may move a flat colour by a little.
    np.testing.assert_allclose(data.train.images[:, 0, 0, 0], [0, 0, 10, 10, 20, 20], atol=2)
    with Image.open(root / "tiny-imagenet-200" / "val" / "images" / "val_3.JPEG") as image:
        np.testing.assert_array_equal(data.test.images[3], np.asarray(image).transpose(2, 0, 1))


def test_a_missing_class_folder_is_named(root: Path) -> None:
    shutil.rmtree(root / "tiny-imagenet-200" / "train" / WNIDS[1])
    with pytest.raises(BadInput, match=f"no class folder '{WNIDS[1]}', which wnids.txt names; unpack it again"):
        TinyImageNet().load(root)


def test_a_folder_that_is_no_class_is_named(root: Path) -> None:
    train = root / "tiny-imagenet-200" / "train"
    shutil.copytree(train / WNIDS[0], train / "extra")
    with pytest.raises(BadInput, match=re.escape(f"{train}: class folder 'extra' is not in wnids.txt; remove it")):
        TinyImageNet().load(root)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ((WNIDS[1], "n00000000"), "val_annotations.txt: line 3: 'n00000000' is no class of wnids.txt; unpack it again"),
        (("val_2.JPEG", "val_9.JPEG"), "val_9.JPEG: not there, though val_annotations.txt names it; unpack it again"),
    ],
)
def test_a_wrong_annotation_is_named(root: Path, change: tuple[str, str], line: str) -> None:
    path = root / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(BadInput, match=re.escape(line)):
        TinyImageNet().load(root)


@pytest.mark.parametrize("name", ["wnids.txt", "val/val_annotations.txt"])
def test_a_list_that_is_no_text_is_named(root: Path, name: str) -> None:
    path = root / "tiny-imagenet-200" / name
    path.write_bytes(path.read_bytes() + b"\xff")
    with pytest.raises(BadInput, match=re.escape(f"{path}: is not UTF-8 text; unpack it again")):
        TinyImageNet().load(root)


@pytest.mark.parametrize("name", ["wnids.txt", "val/val_annotations.txt"])
def test_a_list_that_nobody_may_read_is_named(root: Path, name: str, forbid: Callable[[Path], None]) -> None:
    path = root / "tiny-imagenet-200" / name
    forbid(path)
    with pytest.raises(BadInput, match=re.escape(f"{path}: cannot be read: Permission denied")):
        TinyImageNet().load(root)


@pytest.mark.parametrize("gone", ["train", "val", "wnids.txt", "val/val_annotations.txt"])
def test_what_is_missing_comes_with_the_way_to_get_it(root: Path, gone: str) -> None:
    path = root / "tiny-imagenet-200" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(Missing, match=re.escape(f"{path} is not there; unpack http://cs231n.stanford.edu/tiny-")):
        TinyImageNet().load(root)


def test_annotations_are_watched_for_changes(root: Path) -> None:
    folder = root / "tiny-imagenet-200"
    assert {folder / "wnids.txt", folder / "val" / "val_annotations.txt"} <= set(TinyImageNet().files(root))
