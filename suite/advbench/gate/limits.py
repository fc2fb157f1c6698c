"""What a gate promises: how often it may err."""

from __future__ import annotations

ALPHA = 0.05
"""At most this share of what is worse by exactly the margin PASSes: a limit PASSes one-sided at this level, and all of
them have to (an intersection-union test, Berger 1982, which needs no correction)."""

ROBUST_ALPHA = 0.04
"""A gate FAILs by any limit, so on this side the limits share `ALPHA`: this for robust accuracy, and the rest in equal
parts for the others (Bonferroni with weights). In equal parts, power would go where nobody looks first."""


def failing(robust: bool, others: int) -> float:
    """The level at which a limit FAILs where beside robust accuracy `others` are judged; those alone share all."""
    return ROBUST_ALPHA if robust else (ALPHA - ROBUST_ALPHA) / max(others, 1)
