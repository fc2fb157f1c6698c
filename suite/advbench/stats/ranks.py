"""A board's rows against each other: who is better than whom, and between which ranks a row may lie.

"Not distinguishable from" is not transitive, so there are no groups of ties: each row has a range of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from advbench.stats.difference import LEAST_SEEDS, Groups
from advbench.stats.paired import mcnemar

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]


def holm(p: Array) -> Array:
    """Adjusted p-values of tests judged together, (m,): the chance of any false one is kept (Holm 1979)."""
    order = np.argsort(p)
    steps = np.arange(len(p), 0, -1) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def better(of: Groups, both: Array, alpha: float = 0.05) -> Bools:
    """Which group is better than which, (g, g): all pairs together at `alpha`.

    Two groups of three seeds and more are compared as defenses, two single rows by McNemar's exact test, all others as
    checkpoints. `both`: on how many examples the last row of each two groups is right, (g, g).
    """
    i, j = np.triu_indices(len(of.means), 1)
    least, most = np.minimum(of.seeds[i], of.seeds[j]), np.maximum(of.seeds[i], of.seeds[j])
    p = np.ones(len(i))
    if (some := least >= LEAST_SEEDS).any():
        p[some] = of.defenses(i[some], j[some]).p
    if (some := most == 1).any():
        right = np.diagonal(both)
        p[some] = mcnemar((right[i] - both[i, j])[some], (right[j] - both[i, j])[some])
    if (some := (least < LEAST_SEEDS) & (most > 1)).any():
        p[some] = of.checkpoints(i[some], j[some]).p
    sure = np.zeros((len(of.means),) * 2, dtype=bool)
    sure[i, j] = holm(p) < alpha
    return (sure | sure.T) & (of.means[:, None] > of.means[None, :])


def ranges(better: Bools) -> list[tuple[int, int]]:
    """Each row's rank lies from 1 + the rows better than it to m - the rows worse than it."""
    m = len(better)
    return [(1 + int(above), m - int(below)) for above, below in zip(better.sum(0), better.sum(1), strict=True)]
