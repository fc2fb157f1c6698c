"""Limits on what is measured with error, or counted: accuracy, seconds, passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import exp, log
from statistics import fmean, variance
from typing import Any, Literal

from scipy.special import stdtrit

from advbench.compare.comparison import Claim, change, costs, rows
from advbench.compare.read import Bools, Group, Result
from advbench.spec import BadInput
from advbench.stats.difference import LEAST_SEEDS, Difference
from advbench.stats.paired import Pair

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]

ALPHA = 0.05
"""At most this share of what is worse by exactly the margin PASSes: a limit PASSes one-sided at this level, and all of
them have to (an intersection-union test, Berger 1982, which needs no correction)."""

ROBUST_ALPHA = 0.04
"""A gate FAILs by any limit, so on this side the limits share `ALPHA`: this for robust accuracy, and the rest in equal
parts for the others (Bonferroni with weights). In equal parts, power would go where nobody looks first."""

MOST_EXAMPLES, MOST_SEEDS = 10_000_000, 100
"""More of them nobody is advised to take."""


def failing(robust: bool, others: int) -> tuple[float, float]:
    """The levels at which robust accuracy and each of `others`, one at least, FAILs."""
    return (ROBUST_ALPHA, (ALPHA - ROBUST_ALPHA) / others) if robust else (ALPHA, ALPHA / others)


@dataclass(frozen=True)
class Limit:
    """One of the things that are judged."""

    name: str
    verdict: Verdict
    said: str
    """With its numbers, in a line."""
    advice: tuple[str, ...] = ()
    """What would decide it, and what is decided now."""
    numbers: dict[str, float] = field(default_factory=dict)


def accuracy(
    name: str, old: Group, new: Group, of: Callable[[Result], Bools | None], claim: Claim, margin: float, fail: float
) -> Limit | None:
    """That NEW is not worse than OLD by `margin` or more; it FAILs at level `fail`. None where a side has no verdicts.

    PASS needs the lower bound of the difference above -margin, FAIL the upper bound below it.
    """
    before, after = rows(old, of), rows(new, of)
    if not before or not after:
        return None
    if same_jobs(old, new) and all((a == b).all() for a, b in zip(before, after, strict=True)):
        return Limit(name, "PASS", "the same jobs with the same outcome on every example", numbers={"value": 0})
    found = change(before, after, claim)
    low, high = _bounds(found, fail)
    verdict: Verdict = "PASS" if low > -margin else "FAIL" if high < -margin else "INCONCLUSIVE"
    points = f"{100 * float(found.value):+.2f} points"
    bound = f"at most {100 * high:+.2f}" if verdict == "FAIL" else f"at least {100 * low:+.2f}"
    level = 100 * (1 - (fail if verdict == "FAIL" else ALPHA))
    said = f"{points}, {bound} with {level:.4g} % confidence; margin {100 * margin:g}"
    advice = [_decided(low, high)]
    if verdict == "INCONCLUSIVE":
        advice.append(_more(found, margin, fail, claim))
    numbers = {"value": float(found.value), "low": low, "high": high, "margin": margin}
    return Limit(name, verdict, said, tuple(advice), numbers)


def same_jobs(old: Group, new: Group) -> bool:
    """Whether both sides are the same jobs, seed by seed."""
    return [r.record.id for r in old.results] == [r.record.id for r in new.results]


def _bounds(found: Pair | Difference, fail: float) -> tuple[float, float]:
    return float(found.interval(1 - 2 * ALPHA)[0]), float(found.interval(1 - 2 * fail)[1])


def _decided(low: float, high: float) -> str:
    """The margins that these results decide."""
    text = f"decided now: PASS with {f'a margin above {-100 * low:.2f} points' if low < 0 else 'any margin'}"
    return text + (f", FAIL with one below {-100 * high:.2f}" if high < 0 else "")


def _more(found: Pair | Difference, margin: float, fail: float, claim: Claim) -> str:
    """How many examples or seeds would decide, if the difference stays what it is."""

    def decides(**times: float) -> bool:
        low, high = _bounds(found.scaled(**times), fail)
        return low > -margin or high < -margin

    n = float(found.n)
    examples = _least(lambda f: decides(examples=f), MOST_EXAMPLES / n)
    ways = [f"about {float(f'{n * examples:.2g}'):,.0f} test examples (now {n:,.0f})"] if examples else []
    if isinstance(found, Difference) and claim == "defenses":
        k = int(min(found.seeds))
        seeds = next((s for s in range(k + 1, MOST_SEEDS + 1) if decides(seeds=s / k)), None)
        ways += [f"about {seeds} seeds each (now {k})"] if seeds else []
    if not ways:
        return "undecidable: the difference is too close to the margin for any number of examples or seeds in reach"
    return f"if the difference stays, {' or '.join(ways)} would decide"


def _least(enough: Callable[[float], bool], most: float) -> float | None:
    """The smallest factor that is enough, to a hundredth; None beyond `most`."""
    low, high = 1.0, 2.0
    while not enough(high):
        low, high = high, 2 * high
        if low > most:
            return None
    while high / low > 1.01:
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= most else None


def passes(old: Group, new: Group, ratio: float) -> Limit:
    """That NEW trains with at most `ratio` times the example passes of OLD. Counts are in no doubt."""
    before, after = _costs(old, "train passes"), _costs(new, "train passes")
    if not before or not after:
        return Limit("training passes", "INCONCLUSIVE", "not every record says how many passes its training took")
    found = fmean(after) / fmean(before)
    verdict: Verdict = "PASS" if found <= ratio else "FAIL"
    said = f"{found:.3g} times those of the old one; limit {ratio:g}"
    return Limit("training passes", verdict, said, numbers={"value": found, "limit": ratio})


def seconds(old: Group, new: Group, ratio: float, fail: float) -> Limit:
    """That NEW trains in at most `ratio` times the seconds of OLD, by Welch's t interval on their logarithms.

    Raises BadInput where they were not measured on one machine: between two, or two runners of one kind, seconds
    differ by more than any limit worth setting.
    """
    for key in ("host", "device", "threads"):
        found = {str(r.record.provenance.get(key)) for g in (old, new) for r in g.results}
        if len(found) > 1 or found == {"None"}:
            what = f"{key} {' and '.join(sorted(found))}" if len(found) > 1 else f"no {key} in the records"
            raise BadInput(f"--seconds: compared only within one machine: {what}; run both there, or limit --passes")
    before, after = _costs(old, "train seconds"), _costs(new, "train seconds")
    if min(len(before), len(after)) < LEAST_SEEDS:
        said = f"{len(before)} and {len(after)} timed trainings do not say how much the clock varies"
        return Limit("training seconds", "INCONCLUSIVE", said, (f"{LEAST_SEEDS} seeds each would",))
    low, value, high = _ratio(before, after, fail)
    verdict: Verdict = "PASS" if high < ratio else "FAIL" if low > ratio else "INCONCLUSIVE"
    said = f"{value:.3g} times those of the old one, between {low:.3g} and {high:.3g}; limit {ratio:g}"
    numbers = {"value": value, "low": low, "high": high, "limit": ratio}
    return Limit("training seconds", verdict, said, (f"decided now: PASS with a limit above {high:.3g}",), numbers)


def _costs(group: Group, name: str) -> list[float]:
    found = [costs(result)[name] for result in group.results]
    return [x for x in found if x is not None] if all(found) else []


def _ratio(before: list[float], after: list[float], fail: float) -> tuple[float, float, float]:
    """Bound below at level `fail`, value, bound above at level `ALPHA`, of a ratio of geometric means."""
    one, other = ([log(x) for x in side] for side in (before, after))
    parts = [variance(side) / len(side) for side in (one, other)]
    square = sum(parts)
    value = fmean(other) - fmean(one)
    if square == 0:
        return exp(value), exp(value), exp(value)
    df = int(square**2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (one, other), strict=True)))
    half: Any = [float(stdtrit(df, 1 - level)) * square**0.5 for level in (fail, ALPHA)]
    return exp(value - half[0]), exp(value), exp(value + half[1])
