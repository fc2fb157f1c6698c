"""Examples that are streamed are those that would lie on the device."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from advbench.data.base import DataSet, Split
from advbench.data.subsets import choose
from advbench.task import Data


def split(n: int, seed: int) -> Split:
    """n noisy examples of three classes."""
    rng = np.random.default_rng(seed)
    return Split(rng.integers(0, 256, (n, 1, 2, 2), dtype=np.uint8), rng.choice(3, n))


WHOLE = DataSet(split(1_000, 1), split(400, 2), classes=3, peak=255)


def stored_in(folder: Path, name: str, part: Split) -> Split:
    """The same split, its images in a memory map."""
    np.save(folder / f"{name}.npy", part.images)
    return Split(np.load(folder / f"{name}.npy", mmap_mode="r"), part.labels)


@pytest.fixture
def mapped(tmp_path: Path) -> DataSet:
    """The same data set in memory maps."""
    return replace(WHOLE, train=stored_in(tmp_path, "train", WHOLE.train), test=stored_in(tmp_path, "test", WHOLE.test))


def test_streamed_examples_are_the_resident_ones(mapped: DataSet) -> None:
    fields = Data(name="x", train=300, validation=50, test=70)
    for streamed, resident in zip(
        vars(choose(mapped, fields, "cpu")).values(), vars(choose(WHOLE, fields, "cpu")).values(), strict=True
    ):
        if resident is None:
            assert streamed is None
            continue
        order = torch.randperm(len(resident), generator=torch.Generator().manual_seed(0))
        assert torch.equal(streamed.index, resident.index)
        assert torch.equal(streamed.labels, resident.labels)
        for rows in (slice(None), slice(7, 20), order[:9]):
            assert torch.equal(streamed.pixels(rows), resident.pixels(rows))
        for start in (0, 32, 37):
            pairs = list(
                zip(streamed.batches(order[start:].split(16)), resident.batches(order[start:].split(16)), strict=True)
            )
            assert len(pairs) == -(-(len(order) - start) // 16)
            for step, (one, other) in enumerate(pairs):
                rows = order[start + 16 * step :][:16]
                assert torch.equal(other[0], resident.stored[rows])
                assert torch.equal(other[1], resident.labels[rows])
                assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_leaving_a_streamed_epoch_ends_its_thread(mapped: DataSet) -> None:
    batches = choose(mapped, Data(name="x"), "cpu").train.batches(torch.arange(900).split(10))
    next(batches)
    assert "advbench-ahead" in {thread.name for thread in threading.enumerate()}
    batches.close()
    assert "advbench-ahead" not in {thread.name for thread in threading.enumerate()}


def test_a_reader_s_error_arrives_where_the_batch_is_asked_for(mapped: DataSet) -> None:
    train = choose(mapped, Data(name="x"), "cpu").train
    assert train.places is not None
    broken = replace(train, places=torch.where(torch.arange(900) == 25, 10**6, train.places))
    batches = broken.batches(torch.arange(900).split(10))
    assert [len(labels) for _, labels in (next(batches), next(batches))] == [10, 10]
    with pytest.raises(IndexError):
        next(batches)
