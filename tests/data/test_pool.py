from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.data.base import Arrays, DataSet, Missing, checked
from advbench.data.pool import pooled
from advbench.spec import BadInput

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 3, 5, 4), dtype=np.uint8)
POOL = RNG.integers(0, 256, (9, 5, 4, 3), dtype=np.uint8)


@pytest.fixture
def dataset() -> DataSet:
    return checked(*(Arrays(IMAGES, np.arange(6) % 2, name, name) for name in ("train", "test")))


def write(root: Path, **arrays: Any) -> Path:
    np.savez(root / "pool.npz", **arrays)
    return root


def test_published_pools_are_read_without_their_labels(tmp_path: Path, dataset: DataSet) -> None:
    # A label array that cannot even be read without pickle: nobody looks at it.
    root = write(tmp_path, image=POOL, label=np.array([object()] * 9))
    made = pooled(dataset, root, "pool.npz")
    assert made.pool is not None
    np.testing.assert_array_equal(made.pool, POOL.transpose(0, 3, 1, 2))
    assert made.train is dataset.train


def test_channels_first_and_floats_are_read_as_well(tmp_path: Path, dataset: DataSet) -> None:
    made = pooled(dataset, write(tmp_path, image=(POOL / 255).transpose(0, 3, 1, 2)), "pool.npz")
    assert made.pool is not None
    np.testing.assert_array_equal(made.pool, (POOL / 255).astype(np.float32).transpose(0, 3, 1, 2))


def test_the_digest_covers_the_pool(tmp_path: Path, dataset: DataSet) -> None:
    one = pooled(dataset, write(tmp_path, image=POOL), "pool.npz").sha256
    other = pooled(dataset, write(tmp_path, image=POOL[::-1]), "pool.npz").sha256
    assert len({dataset.sha256, one, other}) == 3


@pytest.mark.parametrize(
    ("arrays", "line"),
    [
        ({"image": POOL[:, :4]}, "image: images of shape (3, 4, 4), but the data set's are (3, 5, 4)"),
        ({"image": POOL[..., :1]}, "image: images of shape (1, 5, 4), but the data set's are (3, 5, 4)"),
        ({"images": POOL}, " no array image; it holds images"),
        ({"image": POOL.astype(int)}, "image: int64; pixels should be uint8, or floats in [0, 1]"),
        ({"image": POOL / 100}, "image: values from 0"),
    ],
)
def test_what_is_no_pool_of_this_set_is_refused(
    tmp_path: Path, dataset: DataSet, arrays: dict[str, Any], line: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(f"{tmp_path / 'pool.npz'}: ") + ".*" + re.escape(line.strip())):
        pooled(dataset, write(tmp_path, **arrays), "pool.npz")


def test_an_absent_pool_is_missing(tmp_path: Path, dataset: DataSet) -> None:
    with pytest.raises(Missing, match=r"pool\.npz is not there; write it with numpy\.savez: image"):
        pooled(dataset, tmp_path, "pool.npz")
