"""Groups of seeds: the variances against plain loops, the claims against simulation from the committed ledgers."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp, ttest_ind

from advbench.gate.limits import ALPHA
from advbench.stats.difference import Difference, Groups, Moments


@pytest.fixture(scope="module")
def simulation(repo: Path) -> ModuleType:
    """`tests/benchmarks/calibration.py`."""
    spec = importlib.util.spec_from_file_location("calibration", repo / "tests" / "benchmarks" / "calibration.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(seed: int, n: int, *means: float) -> np.ndarray:
    """Rows of verdicts, some examples harder than others."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 0.3, n)
    return ease + rng.normal(0, 0.3, (len(means), n)) + np.array(means)[:, None] > 0.5


def groups(rows: np.ndarray, k: int) -> Groups:
    return Groups.of(Moments.of(rows), [range(k), range(k, len(rows))])


def test_moments_are_numpy_s():
    rows = verdicts(0, 500, 0.5, 0.6, 0.9)

    of = Moments.of(rows)

    assert of.means == pytest.approx(rows.mean(1))
    assert of.covariance == pytest.approx(np.cov(rows), abs=1e-12)


def test_checkpoints_are_a_paired_t_test_over_examples():
    rows = verdicts(1, 4000, 0.5, 0.55, 0.6, 0.62, 0.58)
    each = rows[2:].mean(0) - rows[:2].mean(0)

    found = groups(rows, 2).checkpoints()

    assert found.value == pytest.approx(each.mean())
    assert found.variance == pytest.approx(each.var(ddof=1) / 4000 + 2 / 4000**2)
    assert found.p == pytest.approx(ttest_1samp(each, 0).pvalue, rel=0.1)
    assert found.df == 3999


def test_defenses_without_shared_examples_are_welch_s_test_of_seed_means():
    """Where the seeds spread far and examples count for nothing, nothing else is left of the formula."""
    accuracies = np.array([0.50, 0.56, 0.47, 0.61, 0.70, 0.66, 0.58])
    rows = np.arange(100_000) % 1000 / 1000 < accuracies[:, None]
    rng = np.random.default_rng(0)
    rows = np.stack([rng.permutation(row) for row in rows])

    found = groups(rows, 3).defenses()
    welch = ttest_ind(accuracies[3:], accuracies[:3], equal_var=False)

    assert found.value == pytest.approx(accuracies[3:].mean() - accuracies[:3].mean())
    assert abs(found.value) / found.se == pytest.approx(abs(welch.statistic), rel=0.01)
    assert found.df == int(welch.df)
    assert found.p == pytest.approx(2 * t(int(welch.df)).sf(abs(welch.statistic)), rel=0.03)
    low, high = found.interval(0.9)
    half = t(found.df).ppf(0.95) * found.se
    assert (low, high) == (pytest.approx(found.value - half), pytest.approx(found.value + half))


def test_noise_is_the_residual_of_a_table_of_seeds_and_examples():
    rows = verdicts(2, 300, 0.5, 0.6, 0.55, 0.5, 0.5, 0.5)
    y = rows[:3].astype(float)
    residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()

    found = groups(rows, 3)

    assert found.noise[0] == pytest.approx((residual**2).sum() / (2 * 299) / 300 / 3)
    assert found.spread[0] == pytest.approx(y.mean(1).var(ddof=1) / 3)
    # What a claim about checkpoints counts as examples holds the noise, which a claim about defenses counts apart.
    assert found.defenses().examples == pytest.approx(found.checkpoints().variance - sum(found.noise))


def test_variance_freedom_and_interval_by_hand():
    """The first group's seeds spread beyond their noise by 2e-4, the second's by less than theirs."""
    found = Difference(0.1, 8e-4, (4e-4, 2e-4), (6e-4, 1e-4), (3, 5), 100)

    assert found.variance == pytest.approx(8e-4 + 4e-4 + 2e-4 + 2e-4)
    assert found.df == int(16**2 / (6**2 / 2 + 1**2 / 4 + 14**2 / 99)) == 12
    assert found.p == pytest.approx(2 * t(12).sf(0.1 / 0.04))
    half = t(12).ppf(0.975) * 0.04
    assert found.interval() == pytest.approx((0.1 - half, 0.1 + half))
    assert replace(found, value=0.99).interval()[1] == -replace(found, value=-0.99).interval()[0] == 1


def test_more_examples_and_seeds_by_hand():
    found = Difference(0.1, 8e-4, (4e-4, 2e-4), (6e-4, 1e-4), (3, 5), 100).scaled(examples=2, seeds=4)

    assert (found.value, found.n, found.seeds) == (0.1, 200, (12, 20))
    assert found.examples == pytest.approx(4e-4)
    assert found.noise == pytest.approx((4e-4 / 8, 2e-4 / 8))
    assert found.spread == pytest.approx(((2e-4 + 4e-4 / 2) / 4, 1e-4 / 2 / 4))


def test_rows_alone_have_neither_noise_nor_spread():
    found = Groups.of(Moments.of(verdicts(3, 500, 0.5, 0.6)), [[0], [1]])

    assert (found.noise, found.spread) == (pytest.approx([0, 0], abs=1e-12), pytest.approx([0, 0]))
    assert found.checkpoints().df == 499


def test_one_degree_of_freedom_is_left_of_the_fewest_examples():
    one = Groups.of(Moments.of(np.array([[True], [False]])), [[0], [1]]).checkpoints()

    assert (one.value, one.variance, one.df) == (-1, 2, 1)
    assert Difference(0, 0, (1e-3, 1e-3), (1e-3, 1e-3), (3, 3), 2).df == 1  # 4 / 5 by the formula


def test_a_claim_about_defenses_is_never_surer_than_one_about_their_checkpoints():
    for seed in range(20):
        rows = verdicts(seed, 200, *np.random.default_rng(seed).normal(0.5, 0.02, 6))
        found = groups(rows, 3)

        assert found.defenses().variance >= found.checkpoints().variance * (1 - 1e-9)


def test_fewer_than_three_seeds_make_no_claim_about_a_defense():
    rows = verdicts(0, 100, 0.5, 0.5, 0.5, 0.5, 0.5)

    with pytest.raises(ValueError, match="2 of the 3 seeds"):
        groups(rows, 3).defenses()


def test_equal_rows_differ_by_nothing():
    rows = np.repeat(verdicts(0, 100, 0.5), 6, 0)

    found = groups(rows, 3).defenses()

    assert found.value == 0
    assert found.p == 1
    assert found.interval()[0] == pytest.approx(-found.interval()[1])


def test_seeds_and_examples_share_the_variance_as_they_should():
    rows = verdicts(5, 1000, 0.5, 0.52, 0.49, 0.6, 0.63, 0.58)
    found = groups(rows, 3).defenses()
    same = found.scaled()

    assert (same.variance, same.df) == (pytest.approx(found.variance), found.df)
    assert found.scaled(seeds=4).variance == pytest.approx(found.variance / 4 + 0.75 * found.examples)
    # No number of examples takes away what seeds spread.
    spread = sum(s - i for s, i in zip(found.spread, found.noise, strict=True))
    assert found.scaled(examples=1e9).variance == pytest.approx(spread, rel=1e-3)


@pytest.mark.parametrize("spread", [0, 0.013])
@pytest.mark.parametrize("sides", ["SAME", "OTHER"])
def test_two_equal_defenses_are_rarely_told_apart_and_a_worse_one_rarely_passes(simulation, sides, spread):
    """2,000 replays: 6 % is three standard errors from 7.6 %, and 5 % from 6.5 %."""
    rng = np.random.default_rng(1)
    population = simulation.Population(getattr(simulation, sides), 0.1)

    def found(difference: float) -> Difference:
        counts = simulation.replay(population, 10_000, 3, (spread, spread), difference, rng, replays=2000)
        return simulation.defenses(counts, 3)

    assert simulation.rejected(found(0)) < 0.076
    assert simulation.passed(found(-0.01)) < ALPHA + 0.015
    # The simulation can tell: a loss of six points is seen with so many examples unless seeds spread.
    assert simulation.failed(found(-0.06)) > (0.99 if spread == 0 else 0.5)


def test_verdicts_pooled_over_seeds_would_err(simulation):
    """Why nothing here pools: a simulation that cannot show this could not show that we are right either."""
    population = simulation.Population(simulation.SAME, 0.1)
    counts = simulation.replay(population, 10_000, 3, (0.006, 0.006), 0, np.random.default_rng(0), replays=500)

    assert simulation.pooled(counts, 3) > 0.3
    assert simulation.rejected(simulation.defenses(counts, 3)) < 0.076


def test_the_simulated_ledgers_are_as_ordered(simulation):
    population = simulation.Population(simulation.OTHER, 0.1, -0.02)
    counts = simulation.replay(population, 10_000, 1, (0, 0), -0.02, np.random.default_rng(0), replays=400)

    _, gained, lost, _ = counts.mean(0) / 10_000
    assert gained - lost == pytest.approx(-0.02, abs=0.001)
    assert gained + lost == pytest.approx(0.1, abs=0.001)
