"""Whole boards: all pairs at once against one pair at a time."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from advbench.stats.difference import Groups, Moments
from advbench.stats.paired import count
from advbench.stats.ranks import better, holm, ranges


def told_apart(rows: np.ndarray, groups: list[range] | None = None) -> np.ndarray:
    """Which of the groups is better than which; every row is one where nothing else is said."""
    groups = groups or [range(i, i + 1) for i in range(len(rows))]
    last = rows[[group[-1] for group in groups]].astype(float)
    return better(Groups.of(Moments.of(rows), groups), last @ last.T)


def test_holm_by_hand():
    assert holm(np.array([0.04, 0.01, 0.03, 0.005])) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert holm(np.array([0.9, 0.6])) == pytest.approx([1, 1])
    assert holm(np.array([])).shape == (0,)


def test_all_pairs_by_matrix_product_are_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    rows = rng.random((8, 400)) < np.linspace(0.4, 0.6, 8)[:, None]
    pairs = list(combinations(range(8), 2))
    sure = holm(np.array([count(rows[i], rows[j]).p for i, j in pairs])) < 0.05

    beats = told_apart(rows)

    assert 0 < sure.sum() < len(pairs)
    for (i, j), yes in zip(pairs, sure, strict=True):
        assert bool(beats[i, j] | beats[j, i]) == bool(yes)
        assert not beats[i, j] or rows[i].mean() > rows[j].mean()


def test_all_pairs_of_defenses_are_the_pairs_one_by_one():
    rng = np.random.default_rng(0)
    rows = rng.random((11, 4000)) < np.repeat([0.4, 0.45, 0.6], [3, 3, 5])[:, None]
    groups = [range(3), range(3, 6), range(6, 11)]
    of = Groups.of(Moments.of(rows), groups)

    p = of.defenses(np.array([1, 2]), np.array([0, 0])).p

    assert p == pytest.approx([of.defenses(1, 0).p, of.defenses(2, 0).p])
    assert told_apart(rows, groups).sum(1).tolist() == [0, 1, 2]


def test_a_mixed_board_takes_each_pair_by_its_own_test():
    """Two rows, a pair and two groups of three seeds and more, at every level at which a verdict could change."""
    accuracies = np.repeat([0.44, 0.55, 0.5, 0.42, 0.58], [1, 1, 2, 3, 4])
    rows = np.random.default_rng(1).random((11, 300)) < accuracies[:, None]
    groups = [[0], [1], [2, 3], [4, 5, 6], [7, 8, 9, 10]]
    of, last = Groups.of(Moments.of(rows), groups), rows[[group[-1] for group in groups]].astype(float)
    pairs = list(combinations(range(5), 2))
    alone = {(0, 1): count(rows[1], rows[0]).p, (3, 4): of.defenses(4, 3).p}
    p = holm(np.array([float(alone.get(pair, of.checkpoints(*pair).p)) for pair in pairs]))

    for alpha in (*p, *(p + 1e-9)):
        beats = better(of, last @ last.T, alpha)
        assert [bool(beats[i, j] | beats[j, i]) for i, j in pairs] == (p < alpha).tolist()


@pytest.mark.parametrize(("discordant", "sure"), [(5, False), (6, True)])
def test_who_is_better_is_said_at_5_percent(discordant, sure):
    """By McNemar's test 2 / 2^5 is too much and 2 / 2^6 is not."""
    rows = np.ones((2, 50), bool)
    rows[1, :discordant] = False

    assert told_apart(rows).tolist() == [[False, sure], [False, False]]


def test_a_rank_is_a_range_because_ties_are_not_transitive():
    """1 is better than 3; 2 is told from neither."""
    beats = np.zeros((3, 3), dtype=bool)
    beats[0, 2] = True

    assert ranges(beats) == [(1, 2), (1, 3), (2, 3)]


def test_boards_of_equals_seldom_have_a_winner():
    """Family-wise: with 20 equal rows a false one is found on at most 5 % of boards (three errors of 200: 9.6 %)."""
    rng = np.random.default_rng(3)
    false = [told_apart(rng.random((20, 200)) < 0.5).any() for _ in range(200)]

    assert np.mean(false) < 0.096
