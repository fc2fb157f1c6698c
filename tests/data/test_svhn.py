from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import SVHN

from advbench.data.base import Missing
from advbench.data.svhn import Svhn
from advbench.spec import BadInput

IMAGES = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
DIGITS = np.arange(20) % 10


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, md5) -> Path:
    """A data root with an SVHN of 20 + 10 images, official here; as in the real one, a 0 has the label 10."""
    labels = np.where(DIGITS == 0, 10, DIGITS).astype(np.uint8)[:, None]
    listed = dict(SVHN.split_list)
    for split, n in (("train", 20), ("test", 10)):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": IMAGES[..., -n:], "y": labels[-n:]})
        listed[split] = [listed[split][0], path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", listed)
    return tmp_path


def test_pixels_are_in_place_and_a_zero_is_class_zero(root: Path) -> None:
    data = Svhn().load(root)
    assert (data.shape, data.classes) == ((3, 32, 32), 10)
    # The file's axes are row, column, colour, image.
    for n, c, row, column in ((0, 0, 0, 0), (3, 1, 5, 7), (19, 2, 31, 30)):
        assert data.train.images[n, c, row, column] == IMAGES[row, column, c, n]
    np.testing.assert_array_equal(data.test.images, data.train.images[10:])
    np.testing.assert_array_equal(data.train.labels, DIGITS)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_changed_file_is_refused(root: Path, md5, split: str) -> None:
    path = root / f"{split}_32x32.mat"
    published = md5(path)
    path.write_bytes(path.read_bytes()[:-1])
    line = f"{path}: its MD5 is {md5(path)}, but the published file's is {published}; delete it and get it again"
    with pytest.raises(BadInput, match=re.escape(line)):
        Svhn().load(root)


def test_what_is_not_the_published_file_is_refused(tmp_path: Path) -> None:
    for name in Svhn().published():
        savemat(tmp_path / name, {"X": IMAGES, "y": DIGITS})
    with pytest.raises(BadInput, match="published file's is e26dedcc434d2e4c54c9b2d4a06d8373"):
        Svhn().load(tmp_path)


def test_an_absent_file_is_missing(root: Path) -> None:
    (root / "test_32x32.mat").unlink()
    with pytest.raises(Missing, match=r"test_32x32\.mat is not there; advbench run --download gets it"):
        Svhn().load(root)


def test_every_digit_must_be_there(root: Path, monkeypatch: pytest.MonkeyPatch, md5) -> None:
    listed = dict(SVHN.split_list)
    path = root / "train_32x32.mat"
    savemat(path, {"X": IMAGES, "y": (np.arange(20) % 9 + 1).astype(np.uint8)[:, None]})
    monkeypatch.setattr(SVHN, "split_list", {**listed, "train": [listed["train"][0], path.name, md5(path)]})
    with pytest.raises(BadInput, match=re.escape(f"{path}: no example of class 0; ")):
        Svhn().load(root)
    savemat(path, {"X": IMAGES, "y": np.where(DIGITS == 9, 8, DIGITS).astype(np.uint8)[:, None]})
    monkeypatch.setattr(SVHN, "split_list", {**listed, "train": [listed["train"][0], path.name, md5(path)]})
    with pytest.raises(BadInput, match=re.escape(f"{path}: no example of class 9; ")):
        Svhn().load(root)


def test_torchvision_is_asked_for_both_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr("torchvision.datasets.SVHN", lambda root, **how: asked.append((root, how)))
    Svhn().get("here")
    assert asked == [("here", {"split": split, "download": True}) for split in ("train", "test")]
