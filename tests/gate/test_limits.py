"""Each limit's verdict, level and advice."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from advbench.compare.comparison import Claim
from advbench.compare.read import Group, read
from advbench.gate.limits import ALPHA, ROBUST_ALPHA, accuracy, failing, passes, seconds
from advbench.record import Cost
from advbench.spec import BadInput

Sides = Callable[..., tuple[Group, Group]]


def half(n: int, wrong: int) -> np.ndarray:
    return np.arange(n) >= wrong


def group(folder: Path, label: str) -> Group:
    return read(folder / "records/t" / label)[0]


@pytest.fixture
def sides(tmp_path: Path, lay_record) -> Sides:
    """A function: wrong examples of each seed of the old and of the new side, n -> (old, new)."""

    def make(old: list[int], new: list[int], n: int = 1000, **fields) -> tuple[Group, Group]:
        for label, counts in (("old", old), ("new", new)):
            for seed, wrong in enumerate(counts):
                lay_record(tmp_path, label, seed, half(n, wrong), **{k: v[label][seed] for k, v in fields.items()})
        return group(tmp_path, "old"), group(tmp_path, "new")

    return make


def robust(old: Group, new: Group, margin: float, claim: Claim = "checkpoints", fail: float = 0.04) -> Any:
    limit = accuracy("robust accuracy", old, new, lambda r: r.robust, claim, margin, fail)
    assert limit
    return limit


@pytest.mark.parametrize(
    ("lost", "margin", "verdict"),
    [
        (0, 0.01, "PASS"),
        (0, 0.001, "INCONCLUSIVE"),
        (20, 0.05, "PASS"),
        (20, 0.02, "INCONCLUSIVE"),
        (60, 0.02, "FAIL"),
    ],
)
def test_a_verdict_is_where_the_bound_lies(sides: Sides, lost, margin, verdict):
    limit = robust(*sides([100], [100 + lost]), margin)

    assert limit.verdict == verdict
    assert limit.numbers["value"] == pytest.approx(-lost / 1000)
    assert (limit.numbers["low"] > -margin) == (verdict == "PASS")
    assert (limit.numbers["high"] < -margin) == (verdict == "FAIL")


def test_the_margin_that_is_decided_now_is_decided_now(sides: Sides):
    old, new = sides([100], [130])
    limit = robust(old, new, 0.03)
    low, high = limit.numbers["low"], limit.numbers["high"]

    assert limit.verdict == "INCONCLUSIVE"
    assert f"PASS with a margin above {-100 * low:.2f} points, FAIL with one below {-100 * high:.2f}" in limit.advice[0]
    assert robust(old, new, -low + 1e-4).verdict == "PASS"
    assert robust(old, new, -high - 1e-4).verdict == "FAIL"


def test_as_many_examples_as_advised_decide(sides: Sides, tmp_path, lay_record):
    limit = robust(*sides([100], [120]), 0.025)

    said = limit.advice[1]
    assert "seeds" not in said, "more seeds say nothing about these checkpoints"
    n = int(said.partition("about ")[2].partition(" ")[0].replace(",", ""))
    assert n > 1000
    for times, verdict in ((0.8, "INCONCLUSIVE"), (1.1, "PASS")):
        size = int(n * times)
        folder = tmp_path / str(times)
        for label, share in (("old", 0.1), ("new", 0.12)):
            lay_record(folder, label, 0, half(size, round(share * size)))
        assert robust(group(folder, "old"), group(folder, "new"), 0.025).verdict == verdict


def test_seeds_are_advised_where_seeds_are_wanting(sides: Sides):
    limit = robust(*sides([80, 100, 120], [90, 100, 110], n=1000), 0.02, "defenses")

    assert limit.verdict == "INCONCLUSIVE"
    assert "seeds each (now 3)" in limit.advice[1]
    assert "examples" not in limit.advice[1], "no number of examples takes away what seeds spread"


def test_a_difference_at_the_margin_is_undecidable(sides: Sides):
    limit = robust(*sides([100, 101, 99], [120, 121, 119]), 0.02, "defenses")

    assert limit.verdict == "INCONCLUSIVE"
    assert limit.advice[1].startswith("undecidable")


def test_the_same_jobs_with_the_same_outcome_pass_any_margin(sides: Sides):
    old, _ = sides([80, 100, 120], [1])

    assert robust(old, old, 0.0, "defenses").verdict == "PASS"
    # Equal verdicts of other jobs are another matter: they were drawn.
    same, new = sides([80, 100, 120], [80, 100, 120])
    assert robust(same, new, 0.0, "defenses").verdict == "INCONCLUSIVE"


def test_levels_sum_to_alpha():
    for others in (1, 2):
        level, each = failing(True, others)
        assert level + others * each == pytest.approx(ALPHA)
    assert failing(True, 1)[0] == ROBUST_ALPHA
    assert failing(False, 1)[1] == ALPHA


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "FAIL"), (1.5, "PASS"), (2.0, "PASS")])
def test_passes_are_counted(sides: Sides, ratio, verdict):
    cost = {"old": [Cost(train_forward=100, train_backward=100)], "new": [Cost(train_forward=150, train_backward=150)]}

    assert passes(*sides([1], [1], cost=cost), ratio).verdict == verdict
    nothing = {"old": [Cost()], "new": [Cost()]}
    assert passes(*sides([1], [1], cost=nothing), ratio).verdict == "INCONCLUSIVE"


def timed(old: list[float], new: list[float]) -> dict[str, Any]:
    return {"cost": {"old": [Cost(train_seconds=s) for s in old], "new": [Cost(train_seconds=s) for s in new]}}


def test_seconds_are_welch_s_interval_of_their_logarithms(sides: Sides):
    old, new = [10.0, 11.0, 10.5, 9.5, 10.2], [12.0, 13.0, 12.5, 12.2, 11.8]
    found = sides([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], **timed(old, new))
    limit = seconds(*found, 1.3, 0.01)

    welch = ttest_ind(np.log(new), np.log(old), equal_var=False).confidence_interval(0.9)
    assert limit.numbers["value"] == pytest.approx(math.exp(np.log(new).mean() - np.log(old).mean()))
    assert limit.numbers["high"] == pytest.approx(math.exp(welch.high), rel=0.01)
    assert limit.verdict == ("PASS" if math.exp(welch.high) < 1.3 else "INCONCLUSIVE")
    assert seconds(*found, 1.0, 0.05).verdict == "FAIL"
    assert seconds(*found, 1.2, 0.05).verdict == "INCONCLUSIVE"


def test_seconds_of_two_runs_say_nothing_of_the_clock(sides: Sides):
    assert seconds(*sides([1], [1], **timed([1], [9])), 2, 0.05).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(("key", "other"), [("host", "vm2"), ("device", "cuda"), ("threads", 2)])
def test_seconds_of_two_machines_are_refused(sides: Sides, key, other):
    found = sides([1], [2], provenance={"old": [{}], "new": [{key: other}]})

    with pytest.raises(BadInput, match=f"--seconds: compared only within one machine: {key} "):
        seconds(*found, 1.1, 0.05)


def test_both_bounds_are_one_sided(tmp_path: Path, lay_record):
    """With many examples they are normal: 1.645 standard errors below for 5 %, 1.751 above for 4 %."""
    wrong = np.arange(20_000)
    lay_record(tmp_path, "old", 0, wrong >= 2000)
    lay_record(tmp_path, "new", 0, (wrong < 1000) | (wrong >= 4000))

    limit = robust(group(tmp_path, "old"), group(tmp_path, "new"), 0.05, fail=0.04)

    se = math.sqrt((0.15 - 0.05**2) / 20_000)
    assert limit.numbers["low"] == pytest.approx(-0.05 - 1.645 * se, abs=0.05 * se)
    assert limit.numbers["high"] == pytest.approx(-0.05 + 1.751 * se, abs=0.05 * se)
