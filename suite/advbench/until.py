"""`advbench evaluate --until decided`: examples in random order, attacked part by part until their verdicts say enough.

After each part an anytime-valid interval is looked at (`stats.sequential`), so that looking often costs no error: with
95 % confidence all the intervals of one number hold the truth together; the own accuracy and the difference to another
record are two numbers, 95 % each. What they speak of is this test set. A part
is an evaluation of its own, with its own journal and its own seed; the ledgers are joined at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from advbench.compare.match import common, differences
from advbench.compare.read import Bools, read
from advbench.data.base import Examples
from advbench.external import External, drawn
from advbench.ledger import STANDING
from advbench.outside import Outside
from advbench.scores import Verdicts, join, scores
from advbench.seeds import derive
from advbench.spec import BadInput
from advbench.stats.sequential import ConfidenceSequence
from advbench.task import Evaluation
from advbench.verdicts import climb, ladder

PARTS = 20
"""A part is this share of the test set, or a block where that is less."""

Tell = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Until:
    """When to stop: any of the two; in fractions."""

    against: Path | None = None
    margin: float | None = None
    """The difference to `against` is known to lie wholly above or wholly below -margin."""
    width: float | None = None
    """The interval of robust accuracy is as narrow as this, from end to end."""

    @classmethod
    def of(cls, word: str | None, against: Path | None, margin: float | None, width: float | None) -> Until | None:
        """From the command line's words and points; None where nobody asked. Raises BadInput."""
        if word is None:
            if (against, margin, width) != (None, None, None):
                raise BadInput("--against, --margin and --width say when to stop: add --until decided")
            return None
        if (against is None) != (margin is None) or (against is None and width is None):
            raise BadInput(
                "--until decided: needs --against RECORD with --margin POINTS, or --width POINTS, or all three"
            )
        for name, points, least in (("--margin", margin, 0.0), ("--width", width, 0.01)):
            if points is not None and not (math.isfinite(points) and least <= points <= 100):
                raise BadInput(f"{name}: points of accuracy between {least:g} and 100, not {points}")
        return cls(against, None if margin is None else margin / 100, None if width is None else width / 100)


@dataclass(frozen=True)
class Rule:
    """`Until` with the other record's verdicts in hand."""

    until: Until
    theirs: Bools | None
    """By example of the test set, whether it is robust by the other record."""
    plain: dict[str, Any]
    """What the job says of it."""


def ruled(until: Until, job: External, test: Examples) -> Rule:
    """Read the other record and see whether it answers the same question. Raises BadInput."""
    plain: dict[str, Any] = {"margin": until.margin, "width": until.width}
    if until.against is None:
        return Rule(until, None, plain)
    groups = read(until.against)
    if len(groups) != 1 or len(groups[0].results) != 1 or groups[0].failed:
        raise BadInput(
            f"--against {until.against}: give one record; a difference of verdicts is that of two checkpoints"
        )
    [result] = groups[0].results
    if result.robust is None:
        raise BadInput(f"--against {until.against}: has no robust accuracy to be compared with")
    theirs, ours = ({k: v for k, v in common(j).items() if k != "protocol"} for j in (result.record.job, job.plain()))
    if unlike := differences(theirs, ours):
        raise BadInput(f"--against {until.against}: cannot be compared; they differ in: {'; '.join(unlike)}")
    index = test.index.cpu().numpy()
    order = np.argsort(index)
    if not np.array_equal(index[order], result.index) or (test.labels.cpu().numpy()[order] != result.labels).any():
        raise BadInput(
            f"--against {until.against}: is of other test examples, {len(result.index)} and not {len(index)}"
        )
    robust = np.zeros(len(index), bool)
    robust[order] = result.robust
    return Rule(until, robust, plain | {"against": result.record.files.get("examples.parquet")})


class Watch:
    """What is known by now, and whether it is enough."""

    def __init__(self, rule: Rule, size: int) -> None:
        self.rule, self.size, self.taken = rule, size, 0
        until = rule.until
        # Told apart is the margin; an own accuracy x is followed as 2x - 1, which lies in [-1, 1] as differences do.
        self.change = ConfidenceSequence(size, until.margin or 0.01)
        self.own = ConfidenceSequence(size, until.width or 0.1)

    def add(self, rows: NDArray[np.int64], robust: Bools) -> None:
        """The verdicts of the next examples, whose places in the test set are `rows`."""
        self.taken += len(rows)
        self.own.add(2.0 * robust - 1)
        if self.rule.theirs is not None:
            self.change.add(robust.astype(float) - self.rule.theirs[rows])

    @property
    def why(self) -> str | None:
        """Why this is enough; None where it is not."""
        margin, width = self.rule.until.margin, self.rule.until.width
        if margin is not None and self.change.low > -margin:
            return "above -margin"
        if margin is not None and self.change.high < -margin:
            return "below -margin"
        if width is not None and (self.own.high - self.own.low) / 2 <= width:
            return "narrow enough"
        return "all examples" if self.taken == self.size else None

    def plain(self) -> dict[str, Any]:
        """For the record, in fractions: intervals that hold at all times, 95 % each, of the whole test set."""
        found: dict[str, Any] = {"stopped": self.why or "masked gradient", "examples": self.taken, "of": self.size}
        found["robust"] = [(bound + 1) / 2 for bound in (self.own.low, self.own.high)]
        if self.rule.theirs is None:
            return found
        # Where the other record lay is no part of the job, which holds its digest, and of use to who does it again.
        return found | {"difference": [self.change.low, self.change.high], "against": str(self.rule.until.against)}

    def said(self) -> str:
        """For a person."""
        low, high = (100 * bound for bound in self.plain()["robust"])
        words = f"robust {low:.1f} % to {high:.1f} %"
        if self.rule.theirs is not None:
            words += f", difference {100 * self.change.low:+.2f} to {100 * self.change.high:+.2f} points"
        return f"{self.taken:,} of {self.size:,} examples: {words}"


def climb_until(
    rule: Rule,
    job: External,
    model: Outside,
    test: Examples,
    classes: int,
    root: Path,
    journal: Path,
    tell: Tell,
    base: Path = Path(),
) -> tuple[Verdicts, Watch]:
    """Attack part after part until the rule is met; what they withstood together."""
    how = job.evaluation
    attacks = ladder(how, root, test, classes, base)
    order = drawn(len(test), how.seed)
    watch, found = Watch(rule, len(test)), list[Verdicts]()
    size = min(how.block, math.ceil(len(test) / PARTS))
    for number, start in enumerate(range(0, len(test), size)):
        rows = order[start : start + size]

        def told(stage: str, _done: int, _total: int, words: str) -> None:
            tell(stage, watch.taken, len(test), f"{watch.said() if watch.taken else 'first examples'}; {words}")

        part = test.some(torch.from_numpy(rows))
        mine = _of_part(how, number)
        folder = journal / str(number)
        found.append(climb(job, model.network, job.journal_id, part, attacks, mine, classes, folder, told))
        if found[-1].stopped:
            break
        watch.add(rows, (found[-1].ledger.broken_by == STANDING).numpy())
        if watch.why:
            break
    return _joined(found, attacks, classes), watch


def _of_part(how: Evaluation, number: int) -> Evaluation:
    """Signs of the model and attacks alone are looked at once, on the first part."""
    update: dict[str, Any] = {"seed": derive(how.seed, "until", number), "corruptions": None}
    return how.model_copy(update=update | ({"alone": 0, "stop": False} if number else {}))


def _joined(found: Sequence[Verdicts], attacks: Sequence[Any], classes: int) -> Verdicts:
    first = found[0]
    for verdicts in found[1:]:
        for name in first.ledger.withstood:
            untried = torch.full((len(verdicts.ledger),), -1, dtype=torch.int8)
            verdicts.ledger.withstood.setdefault(name, untried)
    whole = join([verdicts.ledger for verdicts in found])
    return replace(first, ledger=whole, scores=scores(whole, attacks, classes))
