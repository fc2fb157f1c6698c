"""Equal budgets: where the defenses of a task stood when all of them had spent the same.

Budgets are counted in epochs, in example passes of training (forward and backward, replayed batches included) and in
seconds, times the processes that share a training. Each is the least that any seed of a defense spent in all, so that
nobody is asked about training that never was. A defense that does not train against the threat, such as standard
training, would set every budget by its own cheapness: it is ranked, but sets none.

What is ranked is PGD-10 accuracy on validation, from the history, of the checkpoint that training had kept by then.
It is read in the middle of schedules that were planned for longer runs, so it says how soon a defense pays, not how
good it could be with so little.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from statistics import fmean
from typing import Literal, get_args

from advbench.board.defenses import adversarial, by_clean, by_pgd
from advbench.board.rows import Group, Row
from advbench.record import Epoch

Kind = Literal["epochs", "passes", "seconds"]


@dataclass(frozen=True)
class Seed:
    """One record within a budget."""

    row: Row
    climb: tuple[tuple[float, float], ...]
    """(spent, PGD accuracy of the checkpoint kept) after each epoch, to the end; empty without a history."""
    epochs: int
    """Whole epochs that fit."""
    pgd: float | None
    """PGD-10 accuracy on validation of the checkpoint they left; None when none fits, or the job failed."""


@dataclass(frozen=True)
class Place:
    """The seeds of one label within a budget."""

    group: Group
    seeds: tuple[Seed, ...]
    rank: int | None = None
    """1 is the best; equal means share a rank; None without a mean."""

    @property
    def pgd(self) -> float | None:
        """The mean over the seeds that have a value, flagged ones included."""
        values = [seed.pgd for seed in self.seeds if seed.pgd is not None]
        return fmean(values) if values else None

    @property
    def marked(self) -> bool:
        """Whether the mean holds a marked seed or lacks one."""
        return self.group.marked or any(seed.pgd is None for seed in self.seeds)

    @property
    def ended(self) -> bool:
        """Whether the budget holds the whole training of every seed that has a history."""
        counts = {seed.epochs == len(seed.climb) for seed in self.seeds if seed.climb}
        return counts == {True}

    @property
    def epochs(self) -> tuple[int, int]:
        """The fewest and the most whole epochs that fit, over the seeds that did not fail."""
        counts = [seed.epochs for seed in self.seeds if not seed.row.failed]
        return min(counts, default=0), max(counts, default=0)


@dataclass(frozen=True)
class Budget:
    """Every group of a task at one budget."""

    kind: Kind
    amount: float
    places: tuple[Place, ...]
    """In the order of the groups."""


Climb = tuple[tuple[float, float], ...]
Climbs = Sequence[Sequence[Climb]]
"""By group, of each seed."""


def budgets(groups: Sequence[Group]) -> tuple[Budget, ...]:
    """One budget of each kind; none where fewer than two groups have a history to compare."""
    return tuple(found for kind in get_args(Kind) if (found := _largest(groups, kind)))


def at(groups: Sequence[Group], kind: Kind, amount: float, climbs: Climbs) -> Budget:
    """Where `groups` stood when each seed had spent at most `amount` of that `kind` of its climb."""
    places = [
        Place(group, tuple(_seed(row, climb, amount) for row, climb in zip(group.rows, its, strict=True)))
        for group, its in zip(groups, climbs, strict=True)
    ]
    # Accuracies are multiples of 1/n: means that lie closer than this are equal, and only their sums were rounded.
    means = [None if place.pgd is None else round(place.pgd, 9) for place in places]
    rising = sorted(mean for mean in means if mean is not None)
    ranks = [None if mean is None else 1 + len(rising) - bisect_right(rising, mean) for mean in means]
    return Budget(kind, amount, tuple(replace(place, rank=rank) for place, rank in zip(places, ranks, strict=True)))


def _largest(groups: Sequence[Group], kind: Kind) -> Budget | None:
    """The largest budget that every seed of the defenses that set it has spent in full."""
    totals: dict[bool, list[float]] = {True: [], False: []}
    compared = 0
    climbs = climbed(groups, kind)
    for group, its in zip(groups, climbs, strict=True):
        found = [climb[-1][0] for climb in its if climb]
        compared += bool(found)
        totals[adversarial(group.rows[0].record)] += found
    return at(groups, kind, min(totals[True] or totals[False]), climbs) if compared > 1 else None


def climbed(groups: Sequence[Group], kind: Kind) -> Climbs:
    """How each seed of `groups` rose over epochs, example passes or process-seconds."""
    return [[_climb(row, kind) for row in group.rows] for group in groups]


def _seed(row: Row, climb: Climb, amount: float) -> Seed:
    within = [pgd for spent, pgd in climb if spent <= amount]
    return Seed(row, climb, len(within), within[-1] if within else None)


def _climb(row: Row, kind: Kind) -> Climb:
    history = row.record.history if not row.failed else ()
    cost: dict[Kind, Callable[[Epoch], float]] = {
        "epochs": lambda _: 1,
        "passes": lambda epoch: epoch.forward + epoch.backward,
        "seconds": lambda epoch: epoch.seconds * epoch.extra.get("processes", 1),
    }
    spent = list(accumulate(map(cost[kind], history)))
    # A cost of nought is one that nobody measured, not a free training.
    if not spent or spent[0] <= 0:
        return ()
    rule = by_pgd if adversarial(row.record) else by_clean
    kept = accumulate(history, lambda old, new: max(old, new, key=rule))
    return tuple((cost, epoch.pgd) for cost, epoch in zip(spent, kept, strict=True))
