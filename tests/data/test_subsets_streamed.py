"""What is streamed, what lies on the device, and how it gets there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.data.base import DataSet, Split
from advbench.data.subsets import choose
from advbench.task import Data


def split(n: int, seed: int) -> Split:
    """n noisy examples of three classes."""
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (n, 1, 2, 2), dtype=np.uint8), rng.choice(3, n))


WHOLE = DataSet(split(1_000, 1), split(400, 2), classes=3, peak=255)


@pytest.fixture
def mapped(tmp_path: Path) -> DataSet:
    """The same data set, its images in memory maps."""

    def stored_in(name: str, part: Split) -> Split:
        np.save(tmp_path / f"{name}.npy", part.images)
        return Split(np.load(tmp_path / f"{name}.npy", mmap_mode="r"), part.labels)

    return replace(WHOLE, train=stored_in("train", WHOLE.train), test=stored_in("test", WHOLE.test))


def test_a_memory_map_is_streamed_and_never_copied(mapped: DataSet) -> None:
    subsets = choose(mapped, Data(name="x", train=300), "cpu")
    assert np.shares_memory(subsets.train.stored.numpy(), mapped.train.images)
    assert np.shares_memory(subsets.test.stored.numpy(), mapped.test.images)
    assert len(subsets.train) == 300
    assert subsets.train.places is not None
    np.testing.assert_array_equal(
        subsets.train.images(slice(None)).numpy(), WHOLE.train.images[subsets.train.index.numpy()]
    )


def test_what_does_not_fit_is_streamed_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("advbench.data.subsets.fits", lambda size, device: bool(asked.append(size)))
    subsets = choose(WHOLE, Data(name="x", train=300, validation=50, test=70), "cpu")
    assert asked == [300 * 4, 50 * 4, 70 * 4]
    assert np.shares_memory(subsets.train.stored.numpy(), WHOLE.train.images)


def test_a_memory_map_travels_to_its_device_in_pieces(mapped: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("advbench.data.subsets.fits", lambda *_: True)
    monkeypatch.setattr("advbench.data.subsets.CHUNK", 7)
    read: list[int] = []

    class Watched(np.memmap):
        def __getitem__(self, rows: Any) -> Any:
            if isinstance(rows, np.ndarray):
                read.append(len(rows))
            return super().__getitem__(rows)

    watched = replace(mapped.train, images=mapped.train.images.view(Watched))
    # A device of no memory at all stands for an accelerator.
    train = choose(replace(mapped, train=watched), Data(name="x", train=300, validation=50), "meta").train
    assert train.places is None
    assert train.stored.device.type == "meta"
    assert train.stored.shape == (300, 1, 2, 2)
    assert sum(read) == 350
    assert max(read) == 7
