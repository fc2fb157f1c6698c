"""Whether a second attack with fresh randomness contradicts the first, or only had other luck.

An example whose fall depends on the seed falls in the first attack and stands in the second as often as the other way
round: under an honest record the two are exchangeable, whatever its chance is. So of the examples on which the two
disagree, the number that fell only the second time is Binomial(disagreeing, 1/2): McNemar's exact test (Psychometrika
12, 1947) of an attack against itself. It needs no guess of how often an attack is lucky.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scipy.stats import beta, binom

REFUTING = 0.005
"""One-sided level at which a record is refuted: with both sides, at most 1 % of honest ones."""
DOUBTING = 0.025
"""One-sided level at which it is not confirmed either: at most 5 % of honest ones, the refuted among them."""


@dataclass(frozen=True)
class Repeat:
    """How two attacks on the same n examples disagree."""

    examples: int
    """Audited, of all kinds."""
    robust: int
    """Of those, robust by the record."""
    fell: int
    """Robust by the record, broken now."""
    stood: int
    """Broken by the record, standing now."""
    unproven: int
    """Of those, without a stored sample that proves it; they alone count against the record."""

    @property
    def inflated(self) -> float:
        """p-value against an honest record, of one that calls too many robust."""
        return _tail(self.fell, self.stood)

    @property
    def deflated(self) -> float:
        """p-value against an honest record, of one that calls too many broken."""
        return _tail(self.unproven, self.fell)

    @property
    def verdict(self) -> Literal["CONFIRMED", "REFUTED", "INCONCLUSIVE"]:
        p = min(self.inflated, self.deflated)
        if p <= REFUTING:
            return "REFUTED"
        return "CONFIRMED" if p > DOUBTING and self.sees is not None else "INCONCLUSIVE"

    @property
    def sees(self) -> float | None:
        """The share of falsely robust examples from which on 95 % of such audits refute; None where none could.

        Examples are drawn at random, so false ones among them are Binomial(n, share) at most in spread, and `least` of
        them refute: the share is a quantile of Beta(least, n - least + 1).
        """
        least = next((b for b in range(1, self.examples + 1) if _tail(b, self.stood) <= REFUTING), None)
        if least is None or least > self.robust:
            return None
        return float(beta.ppf(0.95, least, self.examples - least + 1))


def _tail(more: int, less: int) -> float:
    """P(X >= more) for X ~ Binomial(more + less, 1/2)."""
    return float(binom.sf(more - 1, more + less, 0.5))
