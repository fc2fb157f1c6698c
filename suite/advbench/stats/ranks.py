"""A board's rows against each other: who is better than whom, and between which ranks a row may lie.

"Not distinguishable from" is not transitive, so there are no groups of ties: each row has a range of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from advbench.stats.difference import Groups, Moments
from advbench.stats.paired import mcnemar

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
Integers = NDArray[np.int64]


def holm(p: Array) -> Array:
    """Adjusted p-values of tests judged together, (m,): the chance of any false one is kept (Holm 1979)."""
    order = np.argsort(p)
    steps = np.arange(len(p), 0, -1) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def better_checkpoints(rows: Bools, alpha: float = 0.05) -> Bools:
    """Which of (m, n) rows is better than which, (m, m): McNemar's exact test of all pairs, together at `alpha`."""
    ones = rows.astype(np.float32)
    both = (ones @ ones.T).astype(float)  # exact below 16 million examples
    alone = np.diagonal(both)[:, None] - both  # [i, j]: examples on which i is right and j is not
    i, j = np.triu_indices(len(rows), 1)
    return _better(np.diagonal(both), i, j, mcnemar(alone[i, j], alone[j, i]), alpha)


def better_defenses(rows: Bools, groups: Sequence[Sequence[int]], alpha: float = 0.05) -> Bools:
    """Which of the `groups`, lists of rows that are seeds, is better than which, (g, g): all pairs at `alpha`."""
    of = Groups.of(Moments.of(rows), groups)
    i, j = np.triu_indices(len(groups), 1)
    return _better(of.means, i, j, of.defenses(i, j).p, alpha)


def _better(means: Array, i: Integers, j: Integers, p: Array, alpha: float) -> Bools:
    sure = np.zeros((len(means), len(means)), dtype=bool)
    sure[i, j] = holm(p) < alpha
    return (sure | sure.T) & (means[:, None] > means[None, :])


def ranges(better: Bools) -> list[tuple[int, int]]:
    """Each row's rank lies from 1 + the rows better than it to m - the rows worse than it."""
    m = len(better)
    return [(1 + int(above), m - int(below)) for above, below in zip(better.sum(0), better.sum(1), strict=True)]
