"""From ledgers to scores: shares of examples with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from advbench.attacks.base import Attack
from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.record import Accuracy, Scores
from advbench.signs import Signs


@dataclass(frozen=True)
class Verdicts:
    """What one set of weights withstood, example by example, on the CPU."""

    rungs: tuple[str, ...]
    """Names that `broken_by` numbers."""
    gradient_rungs: tuple[str, ...]
    one_step: tuple[str, ...]
    """Those of FGSM, whatever the task calls it."""
    foot: tuple[str, ...]
    """The cheap rungs that the ladder begins with, which met every correct example."""
    ledger: Ledger
    """All blocks in one."""
    scores: Scores
    passes: dict[str, str] = field(default_factory=dict[str, str])
    """By number format: what attacks looked for candidates with, as `inference.quick` calls it."""
    stopped: tuple[str, ...] = ()
    """Why the dear rungs were left out; the names of flags."""
    signs: Signs | None = None
    """What the model showed on the fixed sample before any attack; None where there is no sample."""

    @property
    def broken_by(self) -> list[str | None]:
        """For each example: "clean", the name of the rung that broke it, or None where it stands."""
        names = {STANDING: None, CLEAN: "clean"} | dict(enumerate(self.rungs))
        return [names[value] for value in self.ledger.broken_by.tolist()]


def join(ledgers: Sequence[Ledger]) -> Ledger:
    """The ledgers of all blocks as one."""

    def column(name: str) -> Tensor:
        return torch.cat([getattr(ledger, name) for ledger in ledgers])

    columns: dict[str, Any] = {name: column(name) for name in Ledger.columns()}
    # A journal may have carried one block further than another.
    names = [name for name in ledgers[0].withstood if all(name in ledger.withstood for ledger in ledgers)]
    withstood = {name: torch.cat([ledger.withstood[name] for ledger in ledgers]) for name in names}
    done = [stage for stage in ledgers[0].done if all(stage in ledger.done for ledger in ledgers)]
    seconds = sum(ledger.seconds for ledger in ledgers)
    return replace(ledgers[0], **columns, withstood=withstood, done=done, seconds=seconds)


def interval(right: int, n: int, protocol: str | None = None) -> Accuracy:
    """A share with its 95 % Wilson interval (Wilson 1927), by scipy."""
    from scipy.stats import binomtest

    bounds = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return Accuracy(accuracy=right / n, low=float(bounds.low), high=float(bounds.high), n=n, protocol=protocol)


def scores(ledger: Ledger, attacks: Sequence[Attack], classes: int) -> Scores:
    """What the whole ladder and each rung alone left standing.

    Where a rung has not been run, as in an evaluation that was stopped, there is no robust accuracy.
    """
    n = len(ledger)
    after: dict[str, float] = {}
    standing = int((ledger.broken_by != CLEAN).sum())
    clean = interval(standing, n)
    position = 0
    columns: dict[str, Tensor] = {}
    complete = True
    for attack in attacks:
        parts = [part.key for part in attack.parts(classes)]
        done = all(part in ledger.done for part in parts)
        complete &= done
        for number, part in enumerate(parts, position) if done else ():
            standing -= int((ledger.broken_by == number).sum())
            after[part] = standing / n
            columns[part] = ledger.withstood[part]
        position += len(parts)
        if done:
            after[attack.protocol(classes)] = standing / n
            # Alone, an ensemble has broken what any of its parts alone has; where it was not tried, neither were they.
            columns[attack.protocol(classes)] = torch.stack([columns[part] for part in parts]).amin(0)
    tried = {name: column[column >= 0] for name, column in columns.items() if (column >= 0).any()}
    curve = {name: column for name, column in ledger.withstood.items() if name.startswith("curve/")}
    ensembles = [attack for attack in attacks if len(attack.parts(classes)) > 1]
    # What stands has withstood every rung; the strongest one names the protocol.
    protocol = (ensembles or list(attacks))[-1].protocol(classes)
    nearest = ledger.distance[ledger.broken_by != CLEAN]
    return Scores(
        clean=clean,
        rejected=interval(int(ledger.refused.sum()), n) if ledger.detector else None,
        robust=interval(standing, n, protocol) if complete else None,
        attacks=after,
        alone={name: int(column.sum()) / len(column) for name, column in tried.items()},
        alone_n={name: len(column) for name, column in tried.items()},
        curve={name.removeprefix("curve/"): int(column.sum()) / n for name, column in curve.items()},
        distance=float(nearest.median()) if len(nearest) and nearest.median().isfinite() else None,
    )
