from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from advbench.data.base import Missing
from advbench.data.fashion_mnist import FashionMnist
from advbench.data.mnist import SIZES
from advbench.spec import BadInput


@pytest.fixture
def root(tiny_mnist: Path) -> Path:
    """The tiny MNIST under this set's name."""
    (tiny_mnist / "MNIST").rename(tiny_mnist / "FashionMNIST")
    return tiny_mnist


def test_it_is_read_from_its_own_folder(root: Path) -> None:
    data = FashionMnist().load(root)
    raw = root / "FashionMNIST" / "raw"
    assert data.train.images.tobytes() == (raw / "train-images-idx3-ubyte").read_bytes()[16:]
    assert data.test.images.tobytes() == (raw / "t10k-images-idx3-ubyte").read_bytes()[16:]
    np.testing.assert_array_equal(data.train.labels, np.arange(20) % 10)
    assert data.classes == 10


def test_mnist_s_files_are_not_taken_for_it(tiny_mnist: Path) -> None:
    with pytest.raises(Missing, match=re.escape(f"{tiny_mnist / 'FashionMNIST' / 'raw'}")):
        FashionMnist().load(tiny_mnist)


def test_another_size_than_the_official_one_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FashionMnist, "sizes", SIZES)
    line = "train-images-idx3-ubyte: 416 bytes (the official file has 47,040,016); delete it and get it again"
    with pytest.raises(BadInput, match=re.escape(line)):
        FashionMnist().load(root)
