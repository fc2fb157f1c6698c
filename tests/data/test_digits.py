from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from advbench.data import digits
from advbench.data.base import DataSet, Missing
from advbench.data.digits import Digits

NOWHERE = Path("no-data-root-is-needed")


@pytest.fixture(scope="module")
def data() -> DataSet:
    return Digits().load(NOWHERE)


def test_the_split_covers_all_once(data: DataSet) -> None:
    assert (len(data.train.labels), len(data.test.labels)) == (1_437, 360)
    both = np.concatenate([data.train.images, data.test.images]).reshape(-1, 64)
    whole = load_digits().data.astype(np.uint8)
    # As multisets of images: nothing lost, nothing in both parts, no image altered.
    np.testing.assert_array_equal(both[np.lexsort(both.T)], whole[np.lexsort(whole.T)])


def test_images_keep_their_labels_and_order(data: DataSet) -> None:
    read = load_digits()
    digit = {image.tobytes(): label for image, label in zip(read.data.astype(np.uint8), read.target, strict=True)}
    place = {image.tobytes(): i for i, image in enumerate(read.data.astype(np.uint8))}
    for split in (data.train, data.test):
        assert [digit[image.tobytes()] for image in split.images] == split.labels.tolist()
        positions = [place[image.tobytes()] for image in split.images]
        assert positions == sorted(positions)


def test_the_split_is_stratified(data: DataSet) -> None:
    share = np.bincount(load_digits().target) * 360 / 1_797
    assert abs(np.bincount(data.test.labels) - share).max() < 1


def test_pixels_are_sixteenths(data: DataSet) -> None:
    assert (data.shape, data.classes, data.peak) == ((1, 8, 8), 10, 16)
    assert data.train.images.dtype == np.uint8
    assert (int(data.train.images.min()), int(data.train.images.max())) == (0, 16)


def test_the_split_never_changes(data: DataSet) -> None:
    # Records are comparable only on the same split: a change here is a new data set and needs a new name.
    assert data.sha256 == "9aa7a5329011c164d39ba1c01175ebdc69f3b66742ae5ec0ccfd4c49a91005be"


def test_files_exist_and_are_found_without_scikit_learn() -> None:
    [path] = Digits().files(NOWHERE)
    assert path.is_file()
    code = (
        "import sys; from pathlib import Path; from advbench.data.digits import Digits;"
        "Digits().files(Path('x')); sys.exit('sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "find_spec", lambda _: None)
    with pytest.raises(Missing, match="pip install scikit-learn"):
        Digits().load(NOWHERE)
