"""Which examples a task uses: its train, validation and test subsets, a function of `[data]` and nothing else.

All seeds and all defenses of a task meet the same examples, so their results can be compared in pairs.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advbench.data.base import DataSet, Examples, Split
from advbench.data.stream import fits
from advbench.spec import BadInput
from advbench.task import Data

Positions = NDArray[np.int64]
"""Places in an official split or in a pool, ascending."""
UNLABELLED = -1
"""The label of an example whose class nobody may see."""
CHUNK = 256
"""Images on their way to the device at a time; of ImageNet's size, 38 MB."""


@dataclass(frozen=True)
class Subsets:
    """Train and validation are disjoint parts of the official training split, test is a part of the test split."""

    train: Examples
    validation: Examples
    test: Examples
    unlabelled: Examples | None = None
    """Images of the training split that neither of the two uses, or of a pool; every label is -1."""


def choose(dataset: DataSet, data: Data, device: torch.device | str) -> Subsets:
    """The examples that `data` names, on `device`. Raises BadInput when it asks for more than there are."""
    size = len(dataset.train.labels)
    validation = data.validation or min(max(size // 10, 1), 1_000)
    left = size - validation
    if left < 1:
        raise BadInput(
            f"data.validation: {validation:,} leaves nothing to train on; the training split has {size:,} examples"
        )
    further = _further(data, dataset)
    room = left - (further if dataset.pool is None else 0)
    taken = f"the training split has {size:,} and validation takes {validation:,}"
    taken += f", unlabelled {further:,}" if room < left else ""
    if room < 1:
        raise BadInput(f"data.unlabelled.count: {further:,} leaves nothing to train on: {taken}")
    train = data.train or room
    if train > room:
        raise BadInput(f"data.train: {train:,} is more than the {room:,} examples there are: {taken}")
    available = len(dataset.test.labels)
    test = data.test or available
    if test > available:
        raise BadInput(f"data.test: {test:,} is more than the {available:,} examples of the test split")

    held_out = np.arange(left, size) if data.order == "first" else _drawn(dataset.train, validation, data.seed, 0)
    rest = np.setdiff1d(np.arange(size), held_out)
    if data.order == "first":
        kept, tested = rest[:train], np.arange(test)
    else:
        labels = dataset.train.labels[rest]
        kept = rest[stratified(labels, train, _rng(data.seed, 1))]
        tested = _drawn(dataset.test, test, data.seed, 2)
    device = torch.device(device)
    return Subsets(
        train=_take(dataset.train, kept, dataset.peak, device),
        validation=_take(dataset.train, held_out, dataset.peak, device),
        test=_take(dataset.test, tested, dataset.peak, device),
        unlabelled=_unlabelled(dataset, np.setdiff1d(rest, kept), further, data, device) if further else None,
    )


def stratified(labels: NDArray[np.int64], count: int, rng: np.random.Generator) -> Positions:
    """`count` positions, drawn without replacement, with the classes in proportion; ascending.

    Shares are rounded by largest remainders, the lower class first where remainders tie, so each class gets its
    exact share rounded down or up. `count` is at most the number of labels. A larger `count` need not contain a
    smaller one's draw.
    """
    classes, sizes = np.unique(labels, return_counts=True)
    # In integers: a share that is whole must not be lost to a rounded quotient.
    shares, remainders = np.divmod(count * sizes, len(labels))
    extra = np.argsort(-remainders, kind="stable")[: count - int(shares.sum())]
    shares[extra] += 1
    drawn = [
        rng.permutation(np.flatnonzero(labels == label))[:share] for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(drawn))


def _rng(seed: int, subset: int) -> np.random.Generator:
    # A fresh stream for each subset: another number of training examples must not move the test examples.
    return np.random.default_rng((seed, subset))


def _drawn(split: Split, count: int, seed: int, subset: int) -> Positions:
    return stratified(split.labels, count, _rng(seed, subset))


def _further(data: Data, dataset: DataSet) -> int:
    """How many unlabelled images are asked for."""
    if data.unlabelled is None:
        return 0
    count = data.unlabelled.count
    if dataset.pool is not None and count > len(dataset.pool):
        raise BadInput(f"data.unlabelled.count: {count:,} is more than the {len(dataset.pool):,} images of the pool")
    return count


def _unlabelled(dataset: DataSet, unused: Positions, count: int, data: Data, device: torch.device) -> Examples:
    """`count` images of the pool, or of the `unused` ones of the training split."""
    images = dataset.train.images if dataset.pool is None else dataset.pool
    places = unused if dataset.pool is None else np.arange(len(images))
    # Drawn without a look at the labels, which are not to be known.
    drawn = places if data.order == "first" else _rng(data.seed, 3).permutation(places)
    nameless = Split(images, np.full(len(images), UNLABELLED, np.int64))
    return _take(nameless, np.sort(drawn[:count]), dataset.peak, device)


def _take(split: Split, positions: Positions, peak: int, device: torch.device) -> Examples:
    """The examples at `positions`, resident on `device` where they fit; a memory map is never read into memory."""
    index, labels = torch.from_numpy(positions), torch.from_numpy(split.labels[positions])
    mapped = device.type == "cpu" and isinstance(split.images, np.memmap)
    if mapped or not fits(split.images[:1].nbytes * len(positions), device):
        with warnings.catch_warnings():
            # torch cannot mark a tensor as read-only, and nothing here writes to it.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            base = torch.from_numpy(split.images)
        return Examples(base, labels.to(device), index.to(device), peak, places=index)
    return Examples(_carried(split.images, positions, device), labels.to(device), index.to(device), peak)


def _carried(images: NDArray[np.uint8] | NDArray[np.float32], positions: Positions, device: torch.device) -> Tensor:
    """A copy on `device` of the images at `positions`, made in chunks: they may be more than host memory holds."""
    dtype = torch.uint8 if images.dtype == np.uint8 else torch.float32
    found = torch.empty((len(positions), *images.shape[1:]), dtype=dtype, device=device)
    for first in range(0, len(positions), CHUNK):
        found[first : first + CHUNK] = torch.from_numpy(images[positions[first : first + CHUNK]])
    return found
