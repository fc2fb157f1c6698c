"""The test of an attack against itself: its closed form, its errors on simulated attacks, and what it can see."""

from __future__ import annotations

import numpy as np
import pytest

from advbench.audit.repeat import DOUBTING, REFUTING, Repeat

N = 2000


def repeat(fell: int, stood: int, *, examples: int = 100, robust: int = 60) -> Repeat:
    return Repeat(examples, robust, fell, stood, stood)


@pytest.mark.parametrize(
    ("fell", "stood", "p"), [(0, 0, 1), (1, 0, 1 / 2), (8, 0, 1 / 256), (3, 1, 5 / 16), (2, 2, 11 / 16)]
)
def test_p_is_the_tail_of_fair_coins(fell, stood, p):
    assert repeat(fell, stood).inflated == pytest.approx(p)
    assert Repeat(100, 60, stood, fell, fell).deflated == pytest.approx(p)


def test_the_bounds_between_the_three_verdicts():
    assert [repeat(b, 0).verdict for b in (0, 5, 6, 7, 8)] == ["CONFIRMED"] * 2 + ["INCONCLUSIVE"] * 2 + ["REFUTED"]
    assert [repeat(0, c).verdict for c in (0, 5, 6, 7, 8)] == ["CONFIRMED"] * 2 + ["INCONCLUSIVE"] * 2 + ["REFUTED"]
    # What stored images prove broken is broken, however often an attack fails to find it again.
    assert Repeat(100, 60, 0, 30, 5).verdict == "CONFIRMED"


def test_too_few_robust_examples_confirm_nothing():
    assert repeat(0, 0, robust=7).sees is None
    assert repeat(0, 0, robust=7).verdict == "INCONCLUSIVE"
    assert repeat(0, 0, robust=8).verdict == "CONFIRMED"


def outcomes(rng: np.random.Generator, false_share: float, k: int = 100) -> Repeat:
    """A test set on which three examples in ten fall by luck, of a record that calls a share falsely robust."""
    chance = rng.choice([0.0, 1.0, rng.uniform()], p=[0.4, 0.3, 0.3], size=N)
    luck = rng.choice(N, 3 * N // 10, replace=False)
    chance[luck] = rng.uniform(size=3 * N // 10)
    stands, now = rng.uniform(size=N) >= chance, rng.uniform(size=N) >= chance
    false = rng.choice(N, int(N * false_share), replace=False)
    stands[false], now[false] = True, False
    drawn = rng.choice(N, k, replace=False)
    stood = int((~stands & now)[drawn].sum())
    return Repeat(k, int(stands[drawn].sum()), int((stands & ~now)[drawn].sum()), stood, stood)


@pytest.mark.slow
def test_honest_records_are_refuted_as_seldom_as_promised():
    rng = np.random.default_rng(0)
    verdicts = [outcomes(rng, 0).verdict for _ in range(2000)]

    # The levels are upper bounds for a discrete test; three standard errors of 2,000 replays on top.
    refuted, other = verdicts.count("REFUTED") / 2000, 1 - verdicts.count("CONFIRMED") / 2000
    assert 0 < refuted <= 2 * REFUTING + 3 * (0.01 * 0.99 / 2000) ** 0.5
    assert refuted < other <= 2 * DOUBTING + 3 * (0.05 * 0.95 / 2000) ** 0.5


def test_what_it_says_it_sees_is_refuted_in_19_of_20_audits():
    sees = repeat(0, 0).sees
    assert sees is not None
    rng = np.random.default_rng(1)
    drawn = rng.binomial(100, sees, 4000)

    power = np.mean([repeat(int(b), 0).verdict == "REFUTED" for b in drawn])
    assert abs(power - 0.95) < 3 * (0.05 * 0.95 / 4000) ** 0.5
