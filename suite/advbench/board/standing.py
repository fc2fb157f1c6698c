"""Who is better than whom in a task: a range of ranks and an interval for each defense, and what may be said of them.

A pair with three seeds and more on both sides is compared as defenses: examples and seeds both count. With fewer it
is compared as checkpoints, by McNemar's exact test where each side is one, and the page says so. All pairs of a task
are judged together (Holm). Only what was judged on the same examples and under the task's own settings is ranked.
"""

from __future__ import annotations

from collections import Counter
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from advbench.board.beside import Folders, Lost, key, verdicts
from advbench.board.rows import Group
from advbench.board.support import Claim, Interval, Standing
from advbench.stats.difference import LEAST_SEEDS, Difference, Groups, Moments
from advbench.stats.ranks import better, ranges

Bools = NDArray[np.bool_]


def standing(groups: tuple[Group, ...], folders: Folders) -> Standing:
    """Of the groups of one task, whose records lie in `folders`."""
    unranked: dict[str, str] = {}
    found: dict[str, list[Bools]] = {}
    indices: dict[str, bytes] = {}
    for group in groups:
        try:
            index, rows = _rows(group, folders)
        except Lost as why:
            unranked[group.label] = str(why)
            continue
        found[group.label], indices[group.label] = rows, index
    if not found:
        return Standing(unranked=unranked)
    votes = Counter(indices.values())
    usual = max(votes, key=lambda index: (votes[index], index))
    for label in [label for label, index in indices.items() if index != usual]:
        del found[label]
        unranked[label] = "judged on other test examples"
    labels = list(found)
    sizes = [len(rows) for rows in found.values()]
    ends = np.cumsum(sizes).tolist()
    members = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    ones = np.concatenate([np.stack(rows) for rows in found.values()]).astype(np.float32)
    both = (ones @ ones.T).astype(float)  # exact below 16 million examples
    of = Groups.of(Moments.counted(both, ones.shape[1]), members)
    beats = better(of, both[np.ix_(*[[end - 1 for end in ends]] * 2)])
    return Standing(
        ranks=dict(zip(labels, ranges(beats), strict=True)),
        better={one: [labels[j] for j in np.flatnonzero(row)] for one, row in zip(labels, beats, strict=True)},
        intervals={label: interval(of, i) for i, label in enumerate(labels)},
        unranked=unranked,
        claim=_claim(sizes),
    )


def interval(of: Groups, i: int) -> Interval:
    """95 % of the mean robust accuracy of group `i`: Wilson's over the examples, or what seeds add to that.

    From three seeds on it is Student's over examples and seeds, as of a difference from a model that is never right,
    where that is wider; with fewer it speaks of the checkpoints.
    """
    mean, n = float(of.means[i]), of.n
    low, high = wilson(mean, n)
    if of.seeds[i] >= LEAST_SEEDS:
        noise, spread = float(of.noise[i]), float(of.spread[i])
        shared = max(float(of.covariance[i, i]) / n - noise, 0)
        beyond = Difference(mean, shared, (0.0, noise), (0.0, spread), (1, int(of.seeds[i])), n)
        if beyond.se > 0:
            bounds = beyond.interval()
            low, high = min(low, float(bounds[0])), max(high, float(bounds[1]))
    return max(low, 0.0), min(high, 1.0)


def wilson(share: float, n: int) -> Interval:
    """The score interval of a share of `n` examples at 95 % (Wilson, JASA 22, 1927)."""
    z = float(ndtri(0.975))
    middle, half = share + z * z / (2 * n), z * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _rows(group: Group, folders: Folders) -> tuple[bytes, list[Bools]]:
    """The index of the examples, and a row of verdicts for each seed that did not fail. Raises Lost."""
    alive = [row for row in group.rows if not row.failed]
    if not alive:
        raise Lost("it failed")
    if any(row.robust is None for row in alive):
        raise Lost("not attacked to the end, so there is no robust accuracy")
    if any(row.unlike for row in alive):
        raise Lost("under other settings")
    index, rows = b"", list[Bools]()
    for row in alive:
        of, stands = verdicts(folders[key(row.record)], row.record)
        if row.robust and not abs(row.robust.accuracy - stands.mean()) < 1e-6:
            raise Lost(f"the verdicts of seed {row.record.seed} do not add up to its score")
        if rows and of.tobytes() != index:
            raise Lost("its seeds were judged on different test examples")
        index = of.tobytes()
        rows.append(stands)
    return index, rows


def _claim(sizes: list[int]) -> Claim:
    enough = sum(size >= LEAST_SEEDS for size in sizes)
    if enough < 2:
        return "checkpoints"
    return "defenses" if enough == len(sizes) else "both"
