"""Two groups on the same test examples, in numbers and in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Any, Literal

import numpy as np

from advbench.compare.match import remarks
from advbench.compare.read import Bools, Group, Result
from advbench.stats.difference import LEAST_SEEDS, Difference, Groups, Moments
from advbench.stats.paired import Pair, count, odds

Claim = Literal["defenses", "checkpoints"]

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Line:
    """One quantity, as the mean over seeds of each side."""

    name: str
    kind: Literal["accuracy", "curve", "cost", "measure"]
    a: float
    b: float
    change: Pair | Difference | None = None
    """Of B minus A, where it is known example by example."""


@dataclass(frozen=True)
class Comparison:
    """B beside A."""

    a: Group
    b: Group
    claim: Claim
    lines: tuple[Line, ...]
    gained: tuple[int, ...]
    """Index of the test examples that stand for all seeds of B and for none of A,"""
    lost: tuple[int, ...]
    """and the other way round."""
    remarks: tuple[str, ...]

    @property
    def main(self) -> Line:
        """What the verdict is about: robust accuracy where there is one."""
        return next(line for name in ("robust", "clean") for line in self.lines if line.name == name)

    @property
    def about(self) -> str:
        """Whom the verdict speaks of."""
        a, b = len(self.a.results), len(self.b.results)
        if self.claim == "defenses":
            return f"these defenses, {a} seeds each" if a == b else f"these defenses, {a} and {b} seeds"
        return "these two checkpoints" if a == b == 1 else f"these checkpoints, {a} of A and {b} of B"

    def verdict(self, p: float | None = None) -> str:
        """In words; `p` where several are judged together."""
        change = self.main.change
        assert change
        p = float(change.p) if p is None else p
        low, high = (100 * float(bound) for bound in change.interval())
        points = f"{100 * float(change.value):+.2f} points (95 % interval {low:+.2f} to {high:+.2f}, p {said_p(p)})"
        if p >= SIGNIFICANT:
            said = f"no difference in {self.main.name} accuracy is shown"
        else:
            said = f"B is {'better' if change.value > 0 else 'worse'} in {self.main.name} accuracy"
        return f"{said}: {points}, about {self.about}"

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "a": self.a.name,
            "b": self.b.name,
            "seeds": {"a": self.a.seeds, "b": self.b.seeds},
            "claim": self.claim,
            "about": self.about,
            "verdict": self.verdict(),
            "examples": len(self.a.first.index),
            "lines": [
                {"name": line.name, "kind": line.kind, "a": line.a, "b": line.b, "change": _plain(line.change)}
                for line in self.lines
            ],
            "odds": self._odds(),
            "gained": list(self.gained),
            "lost": list(self.lost),
            "remarks": list(self.remarks),
        }

    def _odds(self) -> dict[str, Any] | None:
        """An effect size that the share of discordant examples leaves alone; of two checkpoints only."""
        change = self.main.change
        if not isinstance(change, Pair):
            return None
        value, low, high = odds(int(change.gained), int(change.lost))
        return {name: x if np.isfinite(x) else None for name, x in (("value", value), ("low", low), ("high", high))}


def said_p(p: float) -> str:
    """A p-value as people write it."""
    return "<0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.2f}"


def compare(a: Group, b: Group) -> Comparison:
    """B beside A; their results must be comparable, and each side must have one."""
    enough = min(len(a.results), len(b.results)) >= LEAST_SEEDS
    claim: Claim = "defenses" if enough else "checkpoints"
    said = remarks(a, b)
    if not enough:
        said.append(
            f"fewer than {LEAST_SEEDS} seeds on a side support no claim about a defense: this speaks of the checkpoints"
        )
    elif any(result.record.flags for group in (a, b) for result in group.results):
        said.append("the interval takes seeds to be alike, and a flagged one is not: read its flag first")
    if [result.record.id for result in a.results] == [result.record.id for result in b.results]:
        said.append("the same jobs on both sides")
    gained, lost = _discordant(a, b)
    return Comparison(a, b, claim, tuple(_lines(a, b, claim)), gained, lost, tuple(said))


def change(a: list[Bools], b: list[Bools], claim: Claim) -> Pair | Difference:
    """Of B's rows minus A's, as a claim about what made them or about themselves."""
    if len(a) == len(b) == 1:
        return count(b[0], a[0])
    of = Groups.of(Moments.of(np.stack([*a, *b])), [range(len(a)), range(len(a), len(a) + len(b))])
    return of.defenses() if claim == "defenses" else of.checkpoints()


def rows(group: Group, of: Callable[[Result], Bools | None]) -> list[Bools]:
    """One a seed; none where a seed lacks it."""
    found = [of(result) for result in group.results]
    return [row for row in found if row is not None] if all(row is not None for row in found) else []


def _lines(a: Group, b: Group, claim: Claim) -> list[Line]:
    lines: list[Line] = []
    rungs = {result.path: result.rungs() for group in (a, b) for result in group.results}

    def add(name: str, of: Callable[[Result], Bools | None]) -> None:
        one, other = rows(a, of), rows(b, of)
        if one and other:
            means = [float(np.mean(side)) for side in (one, other)]
            lines.append(Line(name, "accuracy", means[0], means[1], change(one, other, claim)))

    add("clean", lambda result: result.clean)
    for name in rungs[a.first.path]:
        add(f"after {name}", lambda result, name=name: rungs[result.path].get(name))
    add("robust", lambda result: result.robust)
    for eps in sorted(_curve(a.first), key=_radius):
        lines += _mean(f"at radius {eps}", "curve", a, b, lambda result, eps=eps: _curve(result).get(eps))
    for name in ("train passes", "train seconds", "evaluation passes"):
        lines += _mean(name, "cost", a, b, lambda result, name=name: costs(result)[name])
    for name in measures(a.first):
        lines += _mean(name, "measure", a, b, lambda result, name=name: measures(result).get(name))
    return lines


def _mean(name: str, kind: Any, a: Group, b: Group, of: Callable[[Result], float | None]) -> list[Line]:
    one, other = ([v for result in group.results if (v := of(result)) is not None] for group in (a, b))
    whole = len(one) == len(a.results) and len(other) == len(b.results)
    return [Line(name, kind, fmean(one), fmean(other))] if whole else []


def costs(result: Result) -> dict[str, float | None]:
    """A cost of nought is one that nobody measured, as of a model trained elsewhere."""
    cost = result.record.cost
    return {
        "train passes": cost.train_forward + cost.train_backward or None,
        "train seconds": cost.train_seconds or None,
        "evaluation passes": cost.forward + cost.backward or None,
    }


def measures(result: Result) -> dict[str, float]:
    """`{"input-hessian top1_median": 3.2}`, of records that have measures."""
    tables = (result.record.measures or {}).items()
    return {f"{c} {n}": m.value for c, table in tables for n, m in table.items() if m.value is not None}


def _curve(result: Result) -> dict[str, float]:
    return result.record.scores.curve if result.record.scores else {}


def _radius(eps: str) -> Fraction:
    try:
        return Fraction(eps)
    except (ValueError, ZeroDivisionError):
        return Fraction(0)


def _discordant(a: Group, b: Group) -> tuple[tuple[int, ...], tuple[int, ...]]:
    of: Callable[[Result], Bools | None] = lambda result: result.robust  # noqa: E731
    if not (rows(a, of) and rows(b, of)):
        of = lambda result: result.clean  # noqa: E731
    one, other = np.stack(rows(a, of)), np.stack(rows(b, of))
    index = a.first.index
    gained, lost = other.all(0) & ~one.any(0), one.all(0) & ~other.any(0)
    return tuple(index[gained].tolist()), tuple(index[lost].tolist())


def _plain(change: Pair | Difference | None) -> dict[str, Any] | None:
    if change is None:
        return None
    low, high = change.interval()
    found: dict[str, Any] = {"value": float(change.value), "low": float(low), "high": float(high), "p": float(change.p)}
    return found | ({"gained": change.gained, "lost": change.lost} if isinstance(change, Pair) else {})
