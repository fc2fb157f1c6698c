from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from advbench.data.base import Arrays, DataSet, Examples, Missing, Source, Split, checked
from advbench.data.digits import Digits
from advbench.data.image_folder import ImageFolder
from advbench.data.npz import Npz
from advbench.spec import BadInput, validate


def arrays(split: str = "train", images: Any = None, labels: Any = None) -> Arrays:
    """Six grey 2x3 images of three classes, unless told otherwise."""
    if images is None:
        images = np.arange(36, dtype=np.uint8).reshape(6, 1, 2, 3)
    if labels is None:
        labels = np.array([0, 1, 2, 0, 1, 2])
    return Arrays(images, labels, f"f: x_{split}", f"f: y_{split}")


def data_set() -> DataSet:
    return checked(arrays("train"), arrays("test"))


def test_good_arrays_come_through_unchanged() -> None:
    made = data_set()
    np.testing.assert_array_equal(made.train.images, arrays().images)
    np.testing.assert_array_equal(made.test.labels, [0, 1, 2, 0, 1, 2])
    assert (made.classes, made.peak, made.shape) == (3, 255, (1, 2, 3))
    assert made.train.images.dtype == np.uint8
    assert DataSet(made.train, made.test, 3).peak == 255


def test_bytes_in_any_order_of_memory_are_laid_out_image_by_image() -> None:
    turned = np.asfortranarray(arrays().images)
    images = checked(arrays(images=turned), arrays()).train.images
    assert images.flags.c_contiguous
    np.testing.assert_array_equal(images, turned)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4"])
def test_floats_become_float32_of_this_machine(kind: str) -> None:
    images = np.linspace(0, 1, 36).reshape(6, 1, 2, 3).astype(kind)
    made = checked(arrays(images=images), arrays())
    assert made.train.images.dtype == np.dtype("float32")
    assert made.train.images.dtype.isnative
    np.testing.assert_allclose(made.train.images, images, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["uint8", "int32", ">i8", "uint64"])
def test_labels_become_int64(kind: str) -> None:
    made = checked(arrays(labels=np.array([0, 1, 2, 0, 1, 2], kind)), arrays())
    assert made.train.labels.dtype == np.dtype("int64")
    np.testing.assert_array_equal(made.train.labels, [0, 1, 2, 0, 1, 2])


def test_a_rounding_error_above_one_is_no_error() -> None:
    images = np.full((6, 1, 2, 3), 1 + 1e-12)
    assert checked(arrays(images=images), arrays()).train.images.max() == 1


GOOD = np.full((6, 1, 2, 3), 0.5, np.float32)


def one_pixel(value: float) -> Any:
    images = GOOD.copy()
    images[4, 0, 1, 2] = value
    return images


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (np.zeros((6, 2, 3)), None, "x_train: shape (6, 2, 3); images should be (N, C, H, W)"),
        (np.zeros((0, 1, 2, 3)), None, "x_train: shape (0, 1, 2, 3); images should be"),
        (np.ones((6, 1, 2, 3), np.int64), None, "x_train: int64; pixels should be uint8, or floats in [0, 1]"),
        (np.ones((6, 1, 2, 3), bool), None, "x_train: bool; pixels should be uint8"),
        (np.ones((6, 1, 2, 3), np.uint8), None, "x_train: no pixel above 1 where 255 is white"),
        (one_pixel(255), None, "x_train: values from 0.5 to 255; floats should lie in [0, 1]: divide by 255"),
        (one_pixel(255) - GOOD, None, "x_train: values from 0 to 254.5; floats should lie in [0, 1]: divide by 255"),
        (one_pixel(-0.25), None, "x_train: values from -0.25 to 0.5; floats should lie in [0, 1]: undo the norm"),
        (one_pixel(np.nan), None, "x_train: holds NaN or infinite pixels"),
        (one_pixel(np.inf), None, "x_train: holds NaN or infinite pixels"),
        (one_pixel(-np.inf), None, "x_train: holds NaN or infinite pixels"),
        (None, np.eye(6, 3, dtype=int), "y_train: shape (6, 3); labels should be (N,)"),
        (None, np.array([0.0, 1, 2, 0, 1, 2]), "y_train: float64; labels should be integers"),
        (None, np.array([True, False] * 3), "y_train: bool; labels should be integers"),
        (None, np.array([0, 1, 2, 0, 1]), "y_train: 5 labels, but 6 images in f: x_train"),
        (None, np.array([0, 1, 2, 0, -1, 2]), "y_train: a label of -1; labels should be 0, 1, 2, ..."),
        (None, np.array([1, 2, 3, 1, 2, 3]), "y_train: no example of class 0; labels should be 0, 1, 2, ..."),
        (None, np.array([0, 1, 3, 0, 1, 3]), "y_train: no example of class 2;"),
        (None, np.array([0, 1, 10**12, 0, 1, 2]), "y_train: no example of class 3;"),
        (None, np.zeros(6, int), "y_train: only one class"),
    ],
)
def test_bad_arrays_are_refused_by_name(images: Any, labels: Any, line: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"f: {line}")) as caught:
        checked(arrays(images=images, labels=labels), arrays("test"))
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("images", "labels", "line"),
    [
        (np.full((6, 3, 2, 3), 0.5), None, "x_test: images of shape (3, 2, 3), but f: x_train holds (1, 2, 3)"),
        (one_pixel(2), None, "x_test: values from 0.5 to 2"),
        (None, np.array([0, 1, 3, 0, 1, 2]), "y_test: a label of 3, but there are 3 classes: 0 to 2"),
        (None, np.array([0, 1, -2, 0, 1, 2]), "y_test: a label of -2"),
        (None, np.array([0, 1]), "y_test: 2 labels, but 6 images in f: x_test"),
    ],
)
def test_the_test_split_is_checked_too(images: Any, labels: Any, line: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"f: {line}")):
        checked(arrays(), arrays("test", images, labels))


def test_a_class_may_be_missing_from_the_test_split() -> None:
    assert checked(arrays(), arrays("test", labels=np.zeros(6, int))).classes == 3


def test_the_number_of_classes_bounds_training_labels() -> None:
    with pytest.raises(BadInput, match="y_train: a label of 2, but there are 2 classes: 0 to 1"):
        checked(arrays(), arrays("test"), classes=2)
    with pytest.raises(BadInput, match="y_train: no example of class 3"):
        checked(arrays(), arrays("test"), classes=4)


def test_no_pixel_is_whiter_than_white() -> None:
    with pytest.raises(BadInput, match="x_train: a pixel of 35, above the white of 16"):
        checked(arrays(), arrays("test"), peak=16)
    assert checked(arrays(), arrays("test"), peak=35).peak == 35
    black_and_white = arrays(images=arrays().images % 2)
    assert checked(black_and_white, black_and_white, peak=1).peak == 1


def changed(split: Split, *, image: bool) -> Split:
    images: NDArray[np.uint8] = split.images.astype(np.uint8)
    labels = split.labels.copy()
    if image:
        images[5, 0, 1, 2] ^= 1
    else:
        labels[5] = 0
    return Split(images, labels)


def test_the_digest_sees_every_change() -> None:
    one = data_set()
    others = [
        replace(one, train=changed(one.train, image=True)),
        replace(one, test=changed(one.test, image=True)),
        replace(one, train=changed(one.train, image=False)),
        replace(one, test=changed(one.test, image=False)),
        replace(one, train=Split(one.train.images.reshape(6, 1, 3, 2), one.train.labels)),
        replace(one, classes=4),
        replace(one, peak=16),
    ]
    digests = {one.sha256, *(other.sha256 for other in others)}
    assert len(digests) == 1 + len(others)


def test_the_digest_does_not_depend_on_memory_layout() -> None:
    one = data_set()
    turned = np.ascontiguousarray(arrays().images.transpose(3, 2, 1, 0)).transpose(3, 2, 1, 0)
    assert not turned.flags.c_contiguous
    assert replace(one, train=Split(turned, one.train.labels)).sha256 == one.sha256


def examples(stored: torch.Tensor, peak: int) -> Examples:
    n = torch.arange(len(stored))
    return Examples(stored, n, n, peak)


@pytest.mark.parametrize("peak", [16, 255])
@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0])])
def test_pixels_are_shares_of_white(peak: int, rows: slice | torch.Tensor) -> None:
    stored = torch.tensor([0, 3, peak], dtype=torch.uint8).view(3, 1, 1, 1)
    pixels = examples(stored, peak).pixels(rows)
    assert pixels.dtype == torch.float32
    assert torch.equal(pixels, torch.tensor([0, 3 / peak, 1]).view(3, 1, 1, 1)[rows])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_writing_into_pixels_leaves_the_data_alone(dtype: torch.dtype) -> None:
    stored = torch.ones(2, 1, 1, 1, dtype=dtype)
    examples(stored, 1).pixels(slice(0, 2)).zero_()
    assert stored.sum() == 2


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([2, 0])])
def test_some_of_them_keep_their_images_labels_and_places(streamed: bool, rows: slice | torch.Tensor) -> None:
    stored = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)
    at = torch.tensor([4, 2, 0])
    whole = Examples(stored if streamed else stored[at], 10 + at, at, 255, places=at if streamed else None)
    part = whole.some(rows)

    expected = at[rows]
    assert (len(whole), len(part)) == (3, 2)
    assert torch.equal(part.index, expected)
    assert torch.equal(part.labels, 10 + expected)
    assert torch.equal(part.images(slice(None)).flatten(), expected.to(torch.uint8))
    assert torch.equal(whole.images(rows), part.images(slice(None)))
    assert torch.equal(part.images(torch.tensor([1])), part.images(slice(1, 2)))
    assert (part.stored is stored) == streamed


def test_only_for_an_accelerator_is_a_batch_locked_in_memory_where_it_is_gathered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[torch.Tensor] = []
    asked: list[bool] = []
    empty = torch.empty

    def watched(*shape: Any, pin_memory: bool, **how: Any) -> torch.Tensor:
        asked.append(pin_memory)
        made.append(empty(*shape, **how))
        return made[-1]

    monkeypatch.setattr(torch, "empty", watched)
    stored = torch.rand(5, 1, 2, 2)
    for device in ("cuda", "cpu"):
        labels: Any = SimpleNamespace(device=torch.device(device))
        [batch] = Examples(stored, labels, torch.arange(5), 255)._gathered([torch.tensor([3, 1])])
        assert batch.data_ptr() == made[-1].data_ptr()
        assert torch.equal(batch, stored[[3, 1]])
    assert asked == [True, False]


def test_what_is_missing_says_what_how_to_get_it_and_where_it_may_lie(tmp_path: Path) -> None:
    missing = Missing.at(tmp_path / "x", "unpack it")
    assert missing.what == f"{tmp_path / 'x'} is not there; unpack it"
    assert str(missing) == f"{missing.what} (--data-root or ADVBENCH_DATA sets the data root)"
    assert str(Missing("no such package")) == "no such package"


def test_a_path_is_asked_for_or_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='"npz" needs a path'):
        validate(Npz, {})
    with pytest.raises(ValueError, match='"digits" takes no path'):
        validate(Digits, {"path": "x"})
    source: Source = Npz(path="a/b.npz")
    assert source.place(tmp_path) == tmp_path / "a" / "b.npz"


def test_a_size_is_taken_where_images_are_cropped_and_refused_elsewhere() -> None:
    made = validate(ImageFolder, {"path": "a", "size": 7})
    assert (made.path, made.size) == ("a", 7)
    with pytest.raises(ValueError, match='"digits" takes no size'):
        validate(Digits, {"size": 7})
