"""Which examples a task uses: its train, validation and test subsets, a function of `[data]` and nothing else.

All seeds and all defenses of a task meet the same examples, so their results can be compared in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from advbench.data.base import DataSet, Examples, Split
from advbench.spec import BadInput
from advbench.task import Data

Positions = NDArray[np.int64]
"""Places in an official split, ascending."""


@dataclass(frozen=True)
class Subsets:
    """Train and validation are disjoint parts of the official training split, test is a part of the test split."""

    train: Examples
    validation: Examples
    test: Examples


def choose(dataset: DataSet, data: Data, device: torch.device | str) -> Subsets:
    """The examples that `data` names, on `device`. Raises BadInput when it asks for more than there are."""
    size = len(dataset.train.labels)
    validation = data.validation or min(max(size // 10, 1), 1_000)
    left = size - validation
    if left < 1:
        raise BadInput(
            f"data.validation: {validation:,} leaves nothing to train on; the training split has {size:,} examples"
        )
    train = data.train or left
    if train > left:
        raise BadInput(
            f"data.train: {train:,} is more than the {left:,} examples there are: "
            f"the training split has {size:,} and validation takes {validation:,}"
        )
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
    return Subsets(
        train=_take(dataset.train, kept, dataset.peak, device),
        validation=_take(dataset.train, held_out, dataset.peak, device),
        test=_take(dataset.test, tested, dataset.peak, device),
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


def _take(split: Split, positions: Positions, peak: int, device: torch.device | str) -> Examples:
    return Examples(
        stored=torch.from_numpy(split.images[positions]).to(device),
        labels=torch.from_numpy(split.labels[positions]).to(device),
        index=torch.from_numpy(positions).to(device),
        peak=peak,
    )
