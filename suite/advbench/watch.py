"""What a training history shows: a dead model, catastrophic overfitting, robust overfitting.

All of it reads validation accuracies (fractions), epoch by epoch, and only of epochs at the full eps: while eps
ramps, validation meets a larger ball than training did, and says nothing about it.

In catastrophic overfitting a model learns to stand against one step and falls to ten (Wong et al. 2020, arXiv
2001.03994, section 5.4). The rule for it, `sightings`, was fixed after reading curves and simulating noise, before it
was counted on any published run. Of the 63 CIFAR-10 runs of the FastAT Benchmark (arXiv 2604.22853) it then told the
12 that collapse, each in its first bad epoch, and no other. Of 1,000 simulated healthy runs at .2 to .6 that ask 140 to
1,000 examples anew each epoch it told none; that ask 100, where PGD accuracy is .72 of FGSM accuracy and falls by a
third, one in eight.

*Against what.* Robust accuracy is .5 on CIFAR-10 and .25 on CIFAR-100 and Tiny-ImageNet, so a fall is relative to
`best`: the highest PGD accuracy so far. Only an epoch counts for it whose PGD accuracy is at least half of its FGSM
accuracy: early in a hard training PGD leaves .02 where FGSM leaves .15, or .3 where FGSM leaves .8 (MNIST, Linf .3),
and that is the way up. Nor does a constant answer count, which is right for the share of one label under any attack.

*Arm "gap", at once*: PGD accuracy below half of `best`, below half of FGSM accuracy, and WIDE below it. Robust
overfitting costs up to a third of `best` (free AT on CIFAR-10: .42 to .29), and PGD accuracy then still is .83 of FGSM
accuracy at the least. The difference of two accuracies near .25 has a standard error of .04 where 200 examples are
asked, so one epoch suffices.

*Arm "low", ROW epochs in a row*: the same with a gap of NARROW, for FGSM accuracy may end at .3 and not at .9; or PGD
accuracy below a third of `best` whatever FGSM says, for that may fall as well. One such epoch can be noise. Clean
accuracy has to hold, or the run has diverged, which is not this.

*Until when.* A run has recovered when PGD accuracy is at least half of `best` and of FGSM accuracy again. Without the
second, the tail of a collapsed run (FGSM .9, PGD .25) would pass for healthy.

*Arm "end"*: a run that never was robust has nothing to fall from, and is told by its last epoch: PGD accuracy below
half of FGSM accuracy, WIDE below it, and not on its way up. While training goes on this says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Literal

from advbench.record import Epoch

DEAD_SHARE = 0.99
"""A model that gives one class to this share of validation has not learned, unless the labels are so skewed."""
FLOOR = 0.1
"""PGD accuracy from which there is something to fall from; and ABOVE over the most frequent label's share."""
ABOVE = 0.05
WIDE = 0.25
"""FGSM minus PGD accuracy that one epoch suffices for; healthy runs of the FastAT Benchmark stay below .16 on
CIFAR-10."""
NARROW = 0.15
"""FGSM minus PGD accuracy that has to come again."""
ROW = 2
"""Epochs."""
HOLDS = 2 / 3
"""Share of its best that clean accuracy has to hold."""
HEALTHY = 3 / 4
"""Share of its best that PGD accuracy has in a healthy epoch; what a slow collapse has begun to take is less."""
WINDOW = 5
"""Epochs whose mean stands for an accuracy when robust overfitting is asked for."""
DROP = 0.05
"""Fall of PGD accuracy that is robust overfitting. Rice et al. 2020 (arXiv 2002.11569): .535 to .456 on CIFAR-10 with
PGD-AT of 200 epochs; on CIFAR-100 .282 to .219."""
SCATTER = 2
"""Standard deviations of single epochs that the fall has to exceed. The means of two windows differ by .63 of one by
chance, and the best of many windows lies about one above the others."""


@dataclass(frozen=True)
class Sighting:
    """An epoch in catastrophic overfitting."""

    epoch: Epoch
    best: float
    """PGD accuracy, the highest of the epochs before; 0: there was none to fall from."""
    arm: Literal["gap", "low", "end"]
    """What told it; see the top of this file."""


@dataclass(frozen=True)
class Fall:
    """Robust overfitting: PGD accuracies, means over WINDOW epochs."""

    best: float
    best_epoch: int
    """The middle of the best window."""
    last: float
    drop: float


def dead(history: Sequence[Epoch], largest: float = 0) -> bool:
    """Whether the last model gives (almost) one class to everything.

    `largest` is the share of the most frequent label on validation, here and below.
    """
    return bool(history) and history[-1].top_class >= max(DEAD_SHARE, (1 + largest) / 2)


def collapsed(history: Sequence[Epoch], eps: float, largest: float = 0) -> list[Epoch]:
    """The epochs in catastrophic overfitting, of a whole training."""
    return [s.epoch for s in sightings(history, eps, largest)]


def collapsed_now(history: Sequence[Epoch], eps: float, largest: float = 0) -> bool:
    """Whether the latest epoch is in catastrophic overfitting, while training goes on.

    A run that never was robust may still become so. Where this is true, `last_healthy` is an epoch.
    """
    falls = _falls(history, eps, largest)
    return bool(falls) and falls[-1].epoch is history[-1]


def last_healthy(history: Sequence[Epoch], eps: float) -> Epoch | None:
    """The latest epoch whose weights are worth going back to after a collapse; None: there is none.

    What comes later does not change what an epoch was: a copy of the weights taken whenever this is the latest epoch
    is the copy to go back to.
    """
    found, best = None, 0.0
    for epoch in filter(_stands, _full(history, eps)):
        best = max(best, epoch.pgd)
        # No epoch in a collapse gets here: its PGD accuracy is below half of the best or of its FGSM accuracy.
        if epoch.pgd >= HEALTHY * best:
            found = epoch
    return found


def sightings(history: Sequence[Epoch], eps: float, largest: float = 0) -> list[Sighting]:
    """`collapsed`, with what the rule saw in each epoch."""
    found = _falls(history, eps, largest)
    full = _full(history, eps)
    if not full or full[-1] is not history[-1] or (found and found[-1].epoch is full[-1]):
        return found
    *before, last = full
    rising = last.pgd >= max((FLOOR, *(e.pgd for e in before)))
    if _fooled(last) and last.fgsm - last.pgd > WIDE and not rising:
        found.append(Sighting(last, max((e.pgd for e in before if _stands(e)), default=0.0), "end"))
    return found


def overfitted(history: Sequence[Epoch], eps: float, largest: float = 0) -> Fall | None:
    """The fall of PGD accuracy from its best to its last epochs: robust overfitting (Rice et al. 2020).

    None where it is small or within the scatter of epochs, where clean accuracy falls too, in fewer than two WINDOWs,
    and after catastrophic overfitting, which is the stronger word.
    """
    full = _full(history, eps)
    if len(full) < 2 * WINDOW or collapsed(history, eps, largest):
        return None
    start = max(range(len(full) - 2 * WINDOW + 1), key=lambda i: sum(e.pgd for e in full[i : i + WINDOW]))
    top, end = full[start : start + WINDOW], full[-WINDOW:]
    best, last = (fmean(e.pgd for e in window) for window in (top, end))
    scatter = fmean(variance(e.pgd for e in window) for window in (top, end)) ** 0.5
    if best - last <= max(DROP, SCATTER * scatter):
        return None
    if fmean(e.clean for e in end) < HOLDS * max(e.clean for e in full):
        return None
    return Fall(best=best, best_epoch=top[WINDOW // 2].epoch, last=last, drop=best - last)


def _falls(history: Sequence[Epoch], eps: float, largest: float) -> list[Sighting]:
    """Arms "gap" and "low". An epoch's own row is listed from its start, once it is long enough."""
    floor = max(FLOOR, largest + ABOVE)
    found: list[Sighting] = []
    row: list[Epoch] = []
    arm: Literal["gap", "low"] | None = None
    best = clean = 0.0
    for epoch in _full(history, eps):
        fell = best >= floor and epoch.pgd < best / 2
        gap = epoch.fgsm - epoch.pgd if fell and _fooled(epoch) else 0.0
        low = gap > NARROW or (fell and epoch.pgd < best / 3)
        suspect = gap > WIDE or (low and epoch.clean >= HOLDS * clean)
        row = [*row, epoch] if suspect else []
        if arm is None and (gap > WIDE or len(row) >= ROW):
            arm = "gap" if gap > WIDE else "low"
            found += [Sighting(e, best, arm) for e in row[:-1]]
        elif not fell and not _fooled(epoch):
            arm = None
        if arm:
            found.append(Sighting(epoch, best, arm))
        best = max(best, epoch.pgd) if _stands(epoch) else best
        clean = max(clean, epoch.clean)
    return found


def _full(history: Sequence[Epoch], eps: float) -> list[Epoch]:
    return [epoch for epoch in history if epoch.eps >= eps * (1 - 1e-9)]


def _fooled(epoch: Epoch) -> bool:
    """Stands against one step and falls to ten."""
    return epoch.pgd < epoch.fgsm / 2


def _stands(epoch: Epoch) -> bool:
    return not _fooled(epoch) and epoch.top_class < DEAD_SHARE
