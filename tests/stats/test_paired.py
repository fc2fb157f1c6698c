"""Two checkpoints: against scipy's test, against sums over all outcomes, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import binom, binomtest, multinomial

from advbench.stats.paired import Pair, count, interval, mcnemar, odds, score


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (3, 3), (1, 9), (40, 60), (700, 600)])
def test_mcnemar_is_the_binomial_test_on_discordant_pairs(gained, lost):
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0

    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)
    assert mcnemar(lost, gained) == mcnemar(gained, lost)


def test_only_examples_on_which_the_two_disagree_are_counted():
    b, a = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool)

    assert count(b, a) == Pair(2, 1, 5)
    assert count(b, a).value == pytest.approx(b.mean() - a.mean())


def test_a_bound_is_where_the_score_test_stops_excluding():
    """Tango (1998): the likelihood is maximised numerically here, under gained - lost = difference."""
    gained, lost, n = 12, 5, 60
    low, high = interval(gained + 0.5, lost, n, 0.9)  # the continuity correction takes the half away again

    def z(d: float) -> float:
        def slope(q: float) -> float:  # of the log-likelihood in q = P(lost), with P(gained) = q + d
            return gained / (q + d) + lost / q - 2 * (n - gained - lost) / (1 - 2 * q - d)

        q = float(brentq(slope, max(0, -d) + 1e-12, (1 - d) / 2 - 1e-12))  # pyright: ignore[reportArgumentType]
        return (gained - lost - n * d) / math.sqrt(n * (2 * q + d - d * d))

    assert z(float(low)) == pytest.approx(1.6448536, abs=1e-5)
    assert low < (gained - lost) / n < high
    # The upper bound is the lower one with the sides exchanged.
    assert interval(lost, gained, n, 0.9)[1] == pytest.approx(-interval(gained, lost, n, 0.9)[0])


@pytest.mark.parametrize("n", [100, 160])
@pytest.mark.parametrize(("margin", "discordance"), [(0.05, 0.05), (0.05, 0.1), (0.02, 0.3)])
def test_a_one_sided_bound_never_errs_more_often_than_it_says(n, margin, discordance):
    """Summed over every outcome, with B worse by exactly the margin."""
    b, c = (x.ravel() for x in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    b, c = b[b + c <= n], c[b + c <= n]
    shares = (discordance - margin) / 2, (discordance + margin) / 2, 1 - discordance
    chance = multinomial(n, shares).pmf(np.stack([b, c, n - b - c], 1))

    low, high = interval(b, c, n, 0.9)

    assert chance.sum() == pytest.approx(1)
    assert 0.005 < chance[low > -margin].sum() <= 0.05
    assert chance[high < -margin].sum() <= 0.05


def test_all_or_nothing_gives_bounds_within_the_range():
    assert Pair(5, 0, 5).interval()[1] == pytest.approx(1)
    assert 0 < Pair(5, 0, 5).interval()[0] < 0.5
    low, high = Pair(0, 0, 100).interval()
    assert low == pytest.approx(-high)
    assert 0 < high < 0.06
    assert score(0, 0, 10, 0) == 0


def test_an_interval_is_of_95_percent_where_nothing_else_is_said():
    assert Pair(12, 5, 60).interval() == interval(12, 5, 60, 0.95)


def test_odds_have_the_exact_interval():
    value, low, high = odds(30, 50)

    exact = binomtest(30, 80).proportion_ci(0.95, "exact")
    assert value == pytest.approx(30 / 50)
    assert low / (1 + low) == pytest.approx(exact.low)
    assert high / (1 + high) == pytest.approx(exact.high)
    assert odds(4, 0)[0] == odds(4, 0)[2] == math.inf
    assert odds(4, 0)[1] == pytest.approx(0.025**0.25 / (1 - 0.025**0.25))
    assert odds(3, 3)[0] == 1
    assert math.isnan(odds(0, 0)[0])
    assert odds(0, 0)[1:] == (0, math.inf)


def test_four_times_the_examples_halve_the_interval():
    few, many = Pair(300, 200, 5000).interval(), Pair(300, 200, 5000).scaled(4).interval()

    assert (many[1] - many[0]) / (few[1] - few[0]) == pytest.approx(0.5, rel=0.01)


def test_the_test_s_size_is_summed_exactly():
    """Under the null the p-value is below 5 % in at most 5 % of cases, whatever the number of discordant pairs."""
    for m in (5, 20, 101):
        k = np.arange(m + 1)
        assert binom(m, 0.5).pmf(k)[mcnemar(k, m - k) < 0.05].sum() <= 0.05
