"""What the records of a task say in sentences beyond who leads: differences, budgets, curvature, flags.

Every number is computed from the records of the section, and a sentence that they do not support is not said.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advbench.board.budget import Budget
from advbench.board.numbers import budget, percent
from advbench.board.rows import PLAIN
from advbench.board.support import Claim
from advbench.board.table import Section
from advbench.board.words import brief, listed

LEAST = 5
"""Defenses that a rank correlation needs to be spoken of: with four no order is beyond chance at 5 %."""

CURVATURE = {
    ("input-hessian", "clean_top1_median"): "the largest eigenvalue of the input Hessian (median of clean images)",
    ("param-hessian", "fixed_top1"): "the largest eigenvalue of the adversarial loss's weight Hessian",
    ("sharpness", "adversarial_curve_rise"): "the rise of the adversarial loss around the weights",
    ("linearity", "alignment_median"): "the cosine of gradients in the ball (median)",
    ("fosc", "fosc_relative_median"): "the relative FOSC that PGD leaves (median)",
}
"""What is set beside robust accuracy: one quantity for each question that the field asks of curvature."""

BEYOND: dict[Claim, str] = {
    "defenses": "seeds and examples",
    "both": "examples, and beyond seeds where both rows have three",
    "checkpoints": "examples",
    "none": "examples",
}
"""What a real difference is larger than, by whom the ranks speak of."""
ALPHA = 0.05
DRAWS = 9_999
"""Random pairings that stand for all of them where there are more: a p-value is known to 0.01 and better."""


def remarks(section: Section) -> list[str]:
    """A sentence or two each, as plain text."""
    return [said for said in (_pairs(section), _budgets(section), _curvature(section), _flags(section)) if said]


def _pairs(section: Section) -> str:
    ranked = len(section.standing.ranks)
    if ranked < 2:
        return ""
    real, pairs = sum(map(len, section.standing.better.values())), ranked * (ranked - 1) // 2
    return f"{real} of the {pairs} differences between two rows are real, beyond {BEYOND[section.standing.claim]}."


def _budgets(section: Section) -> str:
    parts = [_first(one) for one in section.budgets]
    return f"First on validation against PGD-10: {'; '.join(parts)}." if parts else ""


def _first(one: Budget) -> str:
    best = [place for place in one.places if place.rank == 1]
    names = listed([place.group.label for place in best])
    said = f"after {budget(one.kind, one.amount)} {names}, {percent(best[0].pgd)} %"
    # The last epochs of a schedule, where its rate falls, are worth more than those of its middle.
    ended = [place.group.label for place in best if place.ended]
    within = sum(not place.ended for place in one.places if place.pgd is not None)
    if not ended or not within:
        return said
    return (
        f"{said} (where the training of {listed(ended)} ends and that of {within} other{'s' * (within > 1)} does not)"
    )


def _curvature(section: Section) -> str:
    from advbench.stats.ranks import holm

    found: list[tuple[str, float, float, int]] = []
    for (collector, name), words in CURVATURE.items():
        pairs = [
            (group.robust, fmean(values)) for group in section.trained if (values := group.measures(collector, name))
        ]
        known = np.array([pair for pair in pairs if None not in pair], dtype=float).reshape(-1, 2)
        # One value for all has no order.
        if len(known) >= LEAST and all(len(set(column)) > 1 for column in known.T.tolist()):
            found.append((words, *_spearman(known[:, 0], known[:, 1]), len(known)))
    if not found:
        return ""
    sure = holm(np.array([p for _, _, p, _ in found])) < ALPHA
    groups = {
        "rises with": [one for one, real in zip(found, sure, strict=True) if real and one[1] > 0],
        "falls with": [one for one, real in zip(found, sure, strict=True) if real and one[1] < 0],
        "goes neither way beyond chance with": [one for one, real in zip(found, sure, strict=True) if not real],
    }
    parts = [f"{how} {_each(ones)}" for how, ones in groups.items() if ones]
    counts = sorted({n for *_, n in found})
    over = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return (
        f"From defense to defense robust accuracy {'; it '.join(parts)}. These are Spearman's rank correlations of "
        f"means over {over} defenses, judged together at 5 % (Holm); what goes along with a number need not cause it."
    )


def _each(ones: Sequence[tuple[str, float, float, int]]) -> str:
    *others, last = [f"{words} ({rho:+.2f})" for words, rho, _, _ in ones]
    return f"{', '.join(others)} and {last}" if others else last


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Spearman's rho and its two-sided p-value by pairings: of few defenses, Student's law promises too much."""
    from scipy.stats import permutation_test, rankdata

    first, second = (ranks - ranks.mean() for ranks in (rankdata(x), rankdata(y)))
    length = np.linalg.norm(first) * np.linalg.norm(second)

    def rho(paired: NDArray[np.float64], axis: int = -1) -> Any:
        return (paired * second).sum(axis) / length

    tried: Any = permutation_test(
        (first,), rho, permutation_type="pairings", vectorized=True, n_resamples=DRAWS, rng=np.random.default_rng(0)
    )
    return float(tried.statistic), float(tried.pvalue)


def _flags(section: Section) -> str:
    raised = [(group, name, count) for group in section.groups for name, count in group.flags.items()]
    if not raised:
        return f"No seed of {len(section.rows)} raised a flag." if section.rows else ""
    return (
        "Flags: "
        + "; ".join(
            f"{brief(group.label)} {PLAIN.get(name, name)} on {count} of {len(group.rows)} seeds"
            for group, name, count in raised
        )
        + "."
    )
