"""Each limit's verdict, level and advice."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from advbench.compare.comparison import Claim
from advbench.compare.read import Group, read
from advbench.gate.limits import ALPHA, ROBUST_ALPHA, _decided, _least, _more, accuracy, failing, passes, seconds
from advbench.record import Cost
from advbench.spec import BadInput
from advbench.stats.difference import Difference
from advbench.stats.paired import Pair

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
    assert limit.numbers["margin"] == margin
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
    assert robust(old, new, -low).verdict == robust(old, new, -high).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ((-0.02, 0.01), "PASS with a margin above 2.00 points"),
        ((-0.02, -0.01), "PASS with a margin above 2.00 points, FAIL with one below 1.00"),
        ((-0.02, 0.0), "PASS with a margin above 2.00 points"),
        ((0.0, 0.01), "PASS with any margin"),
        ((0.01, 0.02), "PASS with any margin"),
    ],
)
def test_what_is_decided_now_is_said_of_margins_that_there_are(bounds, said):
    assert _decided(*bounds) == f"decided now: {said}"


def test_a_verdict_is_said_with_its_bound_and_the_level_of_that(sides: Sides):
    for old, new, margin, fail in (([100], [120], 0.05, 0.01), ([100], [220], 0.05, 0.01)):
        limit = robust(*sides(old, new), margin, fail=fail)
        low, high = (100 * limit.numbers[name] for name in ("low", "high"))
        bound = f"at least {low:+.2f} with 95 %" if limit.verdict == "PASS" else f"at most {high:+.2f} with 99 %"
        points = f"{old[0] / 10 - new[0] / 10:+.2f} points"
        assert limit.said == f"{points}, {bound} confidence; margin 5"
        assert len(limit.advice) == 1


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


def test_as_many_seeds_as_advised_decide():
    """Where only seeds scatter: Student's bound, with Welch's degrees of freedom, for the fewest that are enough."""
    found = Difference(0.0, 0.0, (0.0, 0.0), (1e-4, 1e-4), (3, 5), 1000)

    def bound(seeds: int) -> float:
        times = seeds / 3
        df = int(2**2 / (1 / (3 * times - 1) + 1 / (5 * times - 1)))
        return float(t(df).ppf(0.95)) * math.sqrt(2e-4 / times)

    fewest = next(seeds for seeds in range(4, 101) if bound(seeds) < 0.01)
    assert _more(found, 0.01, 0.05, "defenses") == (
        f"if the difference stays, about {fewest} seeds each (now 3) would decide"
    )
    assert _more(found, 0.01, 0.05, "checkpoints").startswith("undecidable")


@pytest.mark.parametrize("factor", [1.2, 3.0, 9.9])
def test_the_smallest_factor_is_found_to_a_hundredth_up_to_the_most(factor: float):
    found = _least(lambda f: f >= factor, 10)

    assert found is not None
    assert factor <= found <= 1.01 * factor
    assert _least(lambda f: f >= 8, 8) == 8
    assert _least(lambda f: f >= 10.2, 10) is None
    assert _least(lambda _: False, 10) is None


def test_ten_million_examples_are_the_most_that_are_advised():
    """Of 500 discordant pairs of 1,000 the bound lies 1.645 sqrt(0.5 / n) away: 0.00037 at ten million."""
    pair = Pair(250, 250, 1000)

    assert "about 9," in _more(pair, 0.00038, 0.05, "checkpoints")
    assert _more(pair, 0.00035, 0.05, "checkpoints").startswith("undecidable")


def test_the_same_jobs_with_the_same_outcome_pass_any_margin(sides: Sides):
    old, _ = sides([80, 100, 120], [1])

    assert robust(old, old, 0.0, "defenses").verdict == "PASS"
    assert robust(old, old, 0.0, "defenses").numbers == {"value": 0}
    # Equal verdicts of other jobs are another matter: they were drawn.
    same, new = sides([80, 100, 120], [80, 100, 120])
    assert robust(same, new, 0.0, "defenses").verdict == "INCONCLUSIVE"


def test_without_verdicts_on_both_sides_there_is_no_limit(sides: Sides):
    old, new = sides([100], [100])
    missing: list[Any] = [lambda r, lost=lost: None if r in lost.results else r.robust for lost in (old, new)]

    for of in missing:
        assert accuracy("robust accuracy", old, new, of, "checkpoints", 0.05, 0.04) is None


def test_levels_sum_to_alpha():
    for others in (1, 2):
        level, each = failing(True, others)
        assert level + others * each == pytest.approx(ALPHA)
    assert failing(True, 1)[0] == ROBUST_ALPHA == 0.04
    assert failing(False, 1)[1] == ALPHA


@pytest.mark.parametrize(("ratio", "verdict"), [(1.0, "FAIL"), (1.5, "PASS"), (2.0, "PASS")])
def test_passes_are_counted(sides: Sides, ratio, verdict):
    cost = {"old": [Cost(train_forward=100, train_backward=100)], "new": [Cost(train_forward=150, train_backward=150)]}

    limit = passes(*sides([1], [1], cost=cost), ratio)
    assert (limit.verdict, limit.numbers) == (verdict, {"value": 1.5, "limit": ratio})
    for side in ("old", "new"):
        assert passes(*sides([1], [1], cost=cost | {side: [Cost()]}), ratio).verdict == "INCONCLUSIVE"
    half_known = {"old": 2 * cost["old"], "new": [*cost["new"], Cost()]}
    assert passes(*sides([1, 2], [1, 2], cost=half_known), ratio).verdict == "INCONCLUSIVE"


def timed(old: Sequence[float], new: Sequence[float]) -> dict[str, Any]:
    return {"cost": {"old": [Cost(train_seconds=s) for s in old], "new": [Cost(train_seconds=s) for s in new]}}


def test_seconds_are_welch_s_interval_of_their_logarithms(sides: Sides):
    old, new = [10.0, 11.0, 10.5, 9.5, 10.2], [12.0, 13.0, 12.5, 12.2, 11.8]
    found = sides([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], **timed(old, new))
    limit = seconds(*found, 1.3, 0.01)

    welch = ttest_ind(np.log(new), np.log(old), equal_var=False)
    value = np.log(new).mean() - np.log(old).mean()
    low, high = (value + t(int(welch.df)).ppf(level) * value / welch.statistic for level in (0.01, 0.95))
    assert limit.numbers == pytest.approx(
        {"value": math.exp(value), "low": math.exp(low), "high": math.exp(high), "limit": 1.3}
    )
    assert limit.verdict == "PASS"
    assert seconds(*found, limit.numbers["high"], 0.01).verdict == "INCONCLUSIVE"
    assert seconds(*found, limit.numbers["low"], 0.01).verdict == "INCONCLUSIVE"
    assert seconds(*found, 1.0, 0.05).verdict == "FAIL"
    assert seconds(*found, 1.2, 0.05).verdict == "INCONCLUSIVE"


def test_seconds_of_two_runs_say_nothing_of_the_clock(sides: Sides):
    for old, new in (([1], [9]), ([1, 2, 3], [8, 9]), ([1, 2], [7, 8, 9])):
        assert seconds(*sides([1] * len(old), [2] * len(new), **timed(old, new)), 2, 0.05).verdict == "INCONCLUSIVE"


def test_where_the_clock_never_varies_the_ratio_is_what_it_is(sides: Sides):
    limit = seconds(*sides([1, 2, 3], [1, 2, 3], **timed([2, 2, 2], [3, 3, 3])), 1.6, 0.05)

    assert limit.verdict == "PASS"
    assert limit.numbers == pytest.approx({"value": 1.5, "low": 1.5, "high": 1.5, "limit": 1.6})


@pytest.mark.parametrize(("key", "other"), [("host", "vm2"), ("device", "cuda"), ("threads", 2)])
def test_seconds_of_two_machines_are_refused(sides: Sides, key, other):
    found = sides([1], [2], provenance={"old": [{}], "new": [{key: other}]})

    with pytest.raises(BadInput, match=f"--seconds: compared only within one machine: {key} "):
        seconds(*found, 1.1, 0.05)


def test_seconds_of_a_machine_that_nobody_named_are_refused(sides: Sides):
    found = sides([1], [2], provenance={"old": [{"host": None}], "new": [{"host": None}]})

    with pytest.raises(BadInput, match="--seconds: compared only within one machine: no host in the records"):
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
