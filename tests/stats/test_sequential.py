"""The sequence errs rarely however often one looks, is exact at the end, and stops early."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.stats.sequential import LARGEST_BET, ConfidenceSequence, bets, log_capital


@pytest.fixture(scope="module")
def simulation(repo: Path) -> dict[str, Any]:
    """`tests/benchmarks/sequential.py`."""
    return runpy.run_path(str(repo / "tests" / "benchmarks" / "sequential.py"))


def test_the_game_is_fair_and_the_end_is_known():
    """Over every order of a tiny test set the mean capital is 1 at each moment, when the mean is the true one."""
    from itertools import permutations

    x = np.array(list(permutations([1.0, 1.0, -1.0, 0.0, 0.0, 0.0])))

    for side in (1, -1):
        capital = np.exp(log_capital(side * x, bets(x, 0.2), 6, side / 6))
        assert capital.mean(0) == pytest.approx(np.ones(6))


def test_a_stake_is_known_before_its_outcome():
    x = np.random.default_rng(0).integers(-1, 2, 50).astype(float)
    other = x.copy()
    other[30:] = 1 - abs(other[30:])

    assert (bets(x, 0.01)[:31] == bets(other, 0.01)[:31]).all()
    assert bets(np.zeros(1000), 0.02).max() == LARGEST_BET < 0.5
    # Kelly's: the edge over a share that begins at 1 of 10 and counts what was seen.
    assert bets(np.array([0.0, 1, -1, 0]), 0.01) == pytest.approx([0.1, 0.11, 0.01 * 12 / 2, 0.01 * 13 / 3])


@pytest.mark.parametrize(("gained", "lost"), [(20, 20), (10, 50), (0, 15), (0, 0), (150, 150)])
def test_the_truth_is_left_out_in_at_most_one_of_twenty_sequences(simulation, gained, lost):
    """600 sequences looked at after every example: three standard errors above 5 % are 7.7 %."""
    x = simulation["orders"](gained, lost, 600, 400, np.random.default_rng(2))

    wrong = simulation["leaves_out"](x, (gained - lost) / 400, 0.05)

    assert np.mean(wrong <= 400) < 0.077


@pytest.mark.parametrize(("discordance", "share"), [(0.05, 0.1), (0.1, 0.2)])
@pytest.mark.parametrize("truth", [0, -0.02])
def test_zero_or_two_points_take_a_tenth_or_a_fifth_of_the_examples(simulation, discordance, share, truth):
    gained, lost = (round(10_000 * (discordance + s * truth) / 2) for s in (1, -1))
    x = simulation["orders"](gained, lost, 60, 10_000, np.random.default_rng(3))

    either = np.minimum(simulation["leaves_out"](x, 0, 0.02), simulation["leaves_out"](x, -0.02, 0.02))

    assert either.mean() < share * 10_000


def test_bounds_are_where_the_capital_crosses(simulation):
    x = simulation["orders"](30, 120, 1, 1000, np.random.default_rng(4))[0][:400]
    sequence = ConfidenceSequence(1000, 0.05)

    low, high = sequence.add(x)

    for mean, inside in ((low - 1e-6, False), (low + 1e-6, True), (high - 1e-6, True), (high + 1e-6, False)):
        side = 1 if mean < x.mean() else -1
        capital = log_capital(side * x, bets(x, 0.05), 1000, side * mean)
        assert (capital.max() < sequence.threshold) == inside


def test_batches_do_not_matter_and_the_end_is_exact(simulation):
    x = simulation["orders"](30, 120, 1, 1000, np.random.default_rng(4))[0]
    whole, parts = ConfidenceSequence(1000, 0.05), ConfidenceSequence(1000, 0.05)

    at_once = whole.add(x[:700])
    in_parts = [parts.add(part) for part in np.split(x[:700], 7)]

    assert in_parts[-1] == pytest.approx(at_once, abs=1e-9)
    widths = [high - low for low, high in in_parts]
    assert widths == sorted(widths, reverse=True)
    assert parts.add(x[700:]) == pytest.approx((-0.09, -0.09))
    with pytest.raises(ValueError, match="1001 of 1000"):
        parts.add([0])


def test_nothing_seen_says_nothing():
    sequence = ConfidenceSequence(10, 0.02)

    assert (sequence.low, sequence.high) == sequence.add([]) == (-1, 1)
    assert sequence.threshold == pytest.approx(math.log(40))  # 5 %, half of it on each side
