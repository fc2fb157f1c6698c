"""A claim's verdict: intervals by hand, each verdict reachable, and what a lack of evidence does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from advbench.findings import Claim
from advbench.stats.claims import judged


def claim(sense: str = "at least", over: str = "mean", required: float = 1.0) -> Claim:
    return Claim.model_validate(
        {"name": "n", "statement": "s", "source": "here", "required": required, "sense": sense, "over": over}
    )


def test_the_interval_of_a_mean_is_students():
    numbers = [1.2, 1.9, 1.4, 2.2, 1.1]

    found = judged(claim(), numbers)

    low, high = ttest_1samp(numbers, 0).confidence_interval(0.95)
    assert found.found == pytest.approx(np.mean(numbers))
    assert (found.low, found.high) == pytest.approx((low, high))


@pytest.mark.parametrize(
    ("sense", "numbers", "verdict"),
    [
        ("at least", [2.0, 2.1, 2.2], "holds"),
        ("at least", [0.1, 0.2, 0.3], "does not hold"),
        ("at least", [0.5, 1.5, 1.1], "undecided"),
        ("at most", [0.1, 0.2, 0.3], "holds"),
        ("at most", [2.0, 2.1, 2.2], "does not hold"),
        ("at most", [0.5, 1.5, 1.1], "undecided"),
        ("at least", [2.0, 2.02], "holds"),  # t with one degree of freedom: 0.127 on each side
        ("at least", [2.0, 2.4], "undecided"),
        ("at least", [2.0], "undecided"),  # one seed says nothing of a mean
        ("at least", [2.0, None, 2.2], "undecided"),
        ("at least", [], "undecided"),
    ],
)
def test_a_mean_holds_only_where_its_whole_interval_does(sense, numbers, verdict):
    assert judged(claim(sense), numbers).verdict == verdict


@pytest.mark.parametrize(
    ("sense", "numbers", "worst", "verdict"),
    [
        ("at least", [5.0, 1.0, 9.0], 1.0, "holds"),
        ("at least", [5.0, 0.99, 9.0], 0.99, "does not hold"),
        ("at most", [0.1, 1.0, 0.3], 1.0, "holds"),
        ("at most", [0.1, 1.01, 0.3], 1.01, "does not hold"),
        ("at most", [0.5], 0.5, "holds"),
    ],
)
def test_one_seed_refutes_a_claim_about_every_seed(sense, numbers, worst, verdict):
    found = judged(claim(sense, "every seed"), numbers)

    assert (found.found, found.verdict) == (worst, verdict)
    assert (found.low, found.high) == (min(numbers), max(numbers))


def test_of_true_claims_at_the_very_bound_as_many_are_called_false_as_the_confidence_says():
    """With the mean on the bound, "does not hold" is an error of 2.5 % and so is "holds"."""
    rng = np.random.default_rng(0)
    replays = 4000

    said = [judged(claim(), list(rng.normal(1.0, 0.3, size=5))).verdict for _ in range(replays)]

    bound = 3 * math.sqrt(0.025 * 0.975 / replays)
    for verdict in ("holds", "does not hold"):
        assert abs(said.count(verdict) / replays - 0.025) < bound
