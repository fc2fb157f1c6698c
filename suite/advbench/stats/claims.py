"""Whether a claim holds over seeds: an interval of its number beside what was required of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from advbench.findings import Claim

Verdict = Literal["holds", "does not hold", "undecided"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Judged:
    """A claim over seeds."""

    claim: Claim
    numbers: tuple[float | None, ...]
    """One a seed."""
    found: float | None
    """Their mean, or the worst of them; None where a number is missing."""
    low: float | None
    high: float | None
    """Of a mean its 95 % t interval, None for a single seed; of the worst the range of all."""
    verdict: Verdict


def judged(claim: Claim, numbers: Sequence[float | None]) -> Judged:
    """The verdict on `claim` by its `numbers`, one of each seed that ended.

    About a mean: it holds where the whole interval is on the required side, does not hold where none of it is, and is
    undecided between, or with fewer than two seeds. About every seed: one seed on the wrong side refutes it.
    """
    known = [number for number in numbers if number is not None]
    if not known or len(known) < len(numbers):
        return Judged(claim, tuple(numbers), None, None, None, "undecided")
    at_least = claim.sense == "at least"
    if claim.over == "every seed":
        worst = min(known) if at_least else max(known)
        verdict: Verdict = "holds" if _right(worst, claim) else "does not hold"
        return Judged(claim, tuple(known), worst, min(known), max(known), verdict)
    mean = sum(known) / len(known)
    if len(known) < 2:
        return Judged(claim, tuple(known), mean, None, None, "undecided")
    half = _half(known, mean)
    low, high = mean - half, mean + half
    near, far = (low, high) if at_least else (high, low)
    verdict = "holds" if _right(near, claim) else "undecided" if _right(far, claim) else "does not hold"
    return Judged(claim, tuple(known), mean, low, high, verdict)


def _right(number: float, claim: Claim) -> bool:
    return number >= claim.required if claim.sense == "at least" else number <= claim.required


def _half(known: Sequence[float], mean: float) -> float:
    """Half the width of the t interval."""
    from scipy.special import stdtrit  # a run that finds every job done loads no scipy

    spread = math.sqrt(sum((number - mean) ** 2 for number in known) / (len(known) - 1))
    return float(stdtrit(len(known) - 1, (1 + CONFIDENCE) / 2)) * spread / math.sqrt(len(known))
