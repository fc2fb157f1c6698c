"""What the verdicts of a task support; `standing` finds it, and the pages tell it.

Apart from it, because it loads scipy, which a run that finds its pages written does not need.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Claim = Literal["defenses", "checkpoints", "both", "none"]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Standing:
    """What the verdicts of a task support."""

    ranks: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """By label: the best and the worst rank that it may have, of as many as there are ranks."""
    better: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By label: those that it is better than."""
    intervals: dict[str, Interval] = field(default_factory=dict[str, Interval])
    """By label: 95 % of its mean robust accuracy."""
    unranked: dict[str, str] = field(default_factory=dict[str, str])
    """By label: why it has no rank."""
    claim: Claim = "none"
    """Whom the ranks speak of."""


NONE = Standing()
"""Of verdicts that nobody has read."""
