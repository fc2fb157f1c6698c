from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.data.base import DataSet, Missing
from advbench.data.npz import Npz
from advbench.spec import BadInput

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (8, 5, 4), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (8, 3, 5, 4), dtype=np.uint8)
LABELS = np.array([0, 1] * 4)


def write(root: Path, **arrays: Any) -> Path:
    """A data root with d.npz: grey uint8 images and labels, except for what `arrays` says (None: left out)."""
    whole: dict[str, Any] = {"x_train": GREY, "y_train": LABELS, "x_test": GREY[::-1], "y_test": LABELS[::-1], **arrays}
    np.savez(root / "d.npz", **{key: array for key, array in whole.items() if array is not None})
    return root


def load(root: Path) -> DataSet:
    return Npz(path="d.npz").load(root)


def test_grey_images_get_a_channel(tmp_path: Path) -> None:
    data = load(write(tmp_path))
    np.testing.assert_array_equal(data.train.images, GREY[:, None])
    np.testing.assert_array_equal(data.test.images, GREY[::-1, None])
    np.testing.assert_array_equal(data.test.labels, LABELS[::-1])
    assert (data.classes, data.peak) == (2, 255)


@pytest.mark.parametrize("images", [COLOUR, COLOUR[:, :1]])
def test_both_channel_layouts_mean_the_same(tmp_path: Path, images: Any) -> None:
    first = load(write(tmp_path, x_train=images, x_test=images))
    last = load(write(tmp_path, x_train=np.moveaxis(images, 1, 3), x_test=np.moveaxis(images, 1, 3)))
    np.testing.assert_array_equal(first.train.images, images)
    np.testing.assert_array_equal(last.train.images, images)
    assert first.sha256 == last.sha256


def test_floats_are_pixels_as_they_are(tmp_path: Path) -> None:
    unit = GREY / 255
    data = load(write(tmp_path, x_train=unit, x_test=unit))
    np.testing.assert_array_equal(data.train.images, unit[:, None].astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"y_test": None}, ": no array y_test; it holds x_train, y_train, x_test"),
        ({"x_train": GREY.reshape(8, 20)}, ": x_train: shape (8, 20); images should be (N, H, W)"),
        ({"x_train": COLOUR[..., :3]}, ": x_train: shape (8, 3, 5, 3) could be (N, C, H, W) or (N, H, W, C)"),
        ({"x_test": RNG.random((8, 2, 5, 4))}, ": x_test: shape (8, 2, 5, 4); neither axis 1 nor axis 3 is 1 or 3"),
        ({"x_train": COLOUR}, ": x_test: images of shape (1, 5, 4), but {path}: x_train holds (3, 5, 4)"),
        ({"x_train": GREY * 1.0}, ": x_train: values from "),
        ({"x_train": np.full((8, 5, 4), np.nan)}, ": x_train: holds NaN"),
        ({"y_train": LABELS * 1.0}, ": y_train: float64; labels should be integers"),
        ({"y_train": LABELS - 1}, ": y_train: a label of -1"),
        ({"y_train": LABELS + 1}, ": y_train: no example of class 0"),
        ({"y_train": LABELS[:5]}, ": y_train: 5 labels, but 8 images in {path}: x_train"),
        ({"y_test": LABELS * 2}, ": y_test: a label of 2, but there are 2 classes"),
        ({"y_test": np.array([{}, 1] * 4)}, ": y_test: cannot be read: Object arrays cannot be loaded"),
    ],
)
def test_one_line_names_file_and_array(tmp_path: Path, arrays: dict[str, Any], line: str) -> None:
    path = write(tmp_path, **arrays) / "d.npz"
    with pytest.raises(BadInput, match=re.escape(f"{path}{line.format(path=path)}")) as caught:
        load(tmp_path)
    assert len(caught.value.lines) == 1
    assert "\n" not in caught.value.lines[0]


def test_float_bytes_are_told_to_divide(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="divide by 255"):
        load(write(tmp_path, x_test=GREY * 1.0))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, share: float) -> None:
    path = write(tmp_path) / "d.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadInput, match=re.escape(f"{path}: not a whole .npz archive: truncated")):
        load(tmp_path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path) / "d.npz"
    whole = bytearray(path.read_bytes())
    whole[whole.index(GREY.tobytes()) + 7] ^= 1
    path.write_bytes(whole)
    with pytest.raises(BadInput, match=re.escape(f"{path}: x_train: cannot be read: Bad CRC-32")):
        load(tmp_path)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, GREY)
    with pytest.raises(BadInput, match=r"d\.npz: not a whole \.npz archive"):
        load(tmp_path)


def test_an_absent_file_is_missing_and_not_bad(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(Missing, match=re.escape(f"{path} is not there; write it with numpy.savez: x_train")):
        load(tmp_path)
    write(tmp_path)
    assert Npz(path="d.npz").files(tmp_path) == [path]
