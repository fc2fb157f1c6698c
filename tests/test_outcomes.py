"""Attacks compared on the same examples: what is told, from which count on, and what a count is."""

from __future__ import annotations

import math
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from advbench import outcomes
from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.record import Flag

LEVEL, MISSED, GAP = 1 / 1000, 1 / 20, 1 / 10
"""The chance that a rule speaks up for nothing, what an unbounded attack may miss, and what PGD may."""
RUNGS = ("fgsm", "pgd", "apgd-t", "square")
FOOT = RUNGS[:2]


def column(*runs: tuple[int, int]) -> Tensor:
    """(how many, outcome) one after the other: 1 withstood, 0 broken, -1 not tried."""
    return torch.cat([torch.full((length,), value, dtype=torch.int8) for length, value in runs])


def verdicts(broken_by: Tensor | None = None, **withstood: Tensor) -> Any:
    """Verdicts with these columns; the names of signs are `unbounded` and `further`."""
    full = {"apgd_t": "apgd-t", "unbounded": "sign/unbounded", "further": "sign/further"}
    named = {full.get(name, name): outcome for name, outcome in withstood.items()}
    n = len(next(iter(named.values())))
    ledger = Ledger.open(torch.zeros(n, 1, 2, 2), torch.zeros(n, dtype=torch.int64), torch.arange(n))
    ledger.withstood = named
    if broken_by is not None:
        ledger.broken_by = broken_by
    return SimpleNamespace(
        rungs=RUNGS, gradient_rungs=RUNGS[:3], one_step=("fgsm",), foot=FOOT, ledger=ledger, signs=None
    )


def told(found: Any) -> list[Flag]:
    return [flag for rule in outcomes.RULES for flag in rule(found)]


def tail(seen: int, of: int, share: float) -> float:
    """The binomial chance of `seen` or more, term by term."""
    return sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(seen, of + 1))


def first(of: int, share: float) -> int:
    """The least count that is nearly impossible."""
    return next(seen for seen in count() if tail(seen, of, share) < LEVEL)


def test_ten_of_ten_is_the_least_that_tells_two_attacks_apart():
    assert first(10, 0.5) == 10  # 2^-10 < 1/1000 < 2^-9
    for many, names in ((9, []), (10, ["black-box-beats-white-box"])):
        found = verdicts(pgd=column((64, 1)), square=column((many, 0), (64 - many, 1)))
        assert [flag.name for flag in told(found)] == names


@pytest.mark.parametrize(("mine", "theirs"), [(20, 5), (30, 9), (40, 25), (12, 1), (12, 2)])
def test_what_only_the_white_box_breaks_counts_against_the_black_box(mine, theirs):
    square = column((mine, 0), (theirs, 1), (64, 1), (16, 0))
    white = column((mine, 1), (theirs, 0), (64, 1), (16, 0))
    found = outcomes.black_box_beats_white_box(verdicts(apgd_t=white, square=square))

    assert bool(found) == (tail(mine, mine + theirs, 0.5) < LEVEL)
    if found:
        assert (found[0].evidence["black_only"], found[0].evidence["white_only"]) == (mine, theirs)


def test_the_black_box_has_to_beat_all_gradient_attacks_together():
    # Square breaks the first 20; each of two white boxes another ten of these.
    found = verdicts(
        pgd=column((10, 0), (44, 1)), apgd_t=column((10, 1), (10, 0), (34, 1)), square=column((20, 0), (34, 1))
    )

    assert told(found) == []


def test_only_examples_that_both_met_are_compared():
    # PGD met all of a thousand; Square the 64 of the sample, and nine that PGD missed there are not enough.
    square = column((9, 0), (55, 1), (936, -1))
    assert told(verdicts(pgd=column((1000, 1)), square=square)) == []
    # One more is, and so is a black box that breaks all it meets.
    for broken in (10, 64):
        square = column((broken, 0), (64 - broken, 1), (936, -1))
        [flag] = told(verdicts(pgd=column((1000, 1)), square=square))
        evidence = {"black": "square", "white": ["pgd"], "black_only": broken, "white_only": 0}
        assert (flag.name, flag.evidence) == ("black-box-beats-white-box", evidence)


def test_one_step_that_breaks_what_many_do_not_is_told():
    found = verdicts(fgsm=column((30, 0), (8, 1), (62, 1)), pgd=column((30, 1), (8, 0), (62, 1)))
    [flag] = told(found)

    assert flag.name == "one-step-beats-many"
    assert flag.evidence == {"one": "fgsm", "many": "pgd", "one_only": 30, "many_only": 8}
    # The other way round is how it should be.
    assert told(verdicts(fgsm=column((30, 1), (70, 1)), pgd=column((30, 0), (70, 1)))) == []


@pytest.mark.parametrize("met", [20, 61])
def test_an_unbounded_attack_may_miss_one_in_twenty_and_some_luck(met):
    least = first(met, MISSED)
    for withstood, names in ((least - 1, []), (least, ["unbounded-attack-fails"])):
        found = verdicts(
            unbounded=column((withstood, 1), (met - withstood, 0), (5, -1)),
            broken_by=torch.tensor([STANDING] * met + [CLEAN] * 5),
        )
        flags = told(found)
        assert [flag.name for flag in flags] == names
        assert all(flag.evidence == {"withstood": withstood, "examples": met} for flag in flags)


def larger(near: Tensor, further: Tensor, **more: Tensor) -> list[str]:
    return [flag.name for flag in outcomes.larger_eps_does_not_hurt(verdicts(pgd=near, further=further, **more))]


def test_a_radius_that_breaks_less_than_half_of_it_is_told():
    assert larger(column((10, 0), (50, 1)), column((60, 1))) == ["larger-eps-does-not-hurt"]
    assert larger(column((9, 0), (51, 1)), column((60, 1))) == []


def test_twice_the_radius_should_break_some_at_half_of_the_first_one_s_rate():
    # A third fell, so of the 40 others each should fall with a chance of a sixth: (5/6)^40 < 1/1000 < (5/6)^37.
    assert larger(column((20, 0), (40, 1)), column((20, 0), (40, 1))) == ["larger-eps-does-not-hurt"]
    assert larger(column((19, 0), (37, 1)), column((19, 0), (37, 1))) == []
    [flag] = told(verdicts(pgd=column((20, 0), (40, 1)), further=column((21, 1), (39, 1))))
    assert flag.evidence == {"lost": 0, "gained": 20, "broken": 20, "examples": 60}
    # One more that falls is a sign of life.
    assert larger(column((20, 0), (40, 1)), column((21, 0), (39, 1))) == []


def test_a_ball_too_small_for_the_model_is_no_sign_unless_no_ball_would_do():
    near, further = column((1, 0), (60, 1)), column((1, 0), (60, 1))

    assert larger(near, further, unbounded=column((61, 0))) == []
    assert larger(near, further) == []
    assert larger(near, further, unbounded=column((61, 1))) == ["larger-eps-does-not-hurt"]
    # One example that stands is enough to be told by, and none is not.
    near = further = column((60, 0), (1, 1))
    assert larger(near, further, unbounded=column((61, 1))) == ["larger-eps-does-not-hurt"]
    near = further = column((61, 0))
    assert larger(near, further, unbounded=column((61, 1))) == []


def test_where_nothing_stands_twice_the_radius_has_nothing_to_break():
    assert larger(column((60, 0)), column((60, 0)), unbounded=column((60, 0))) == []


@pytest.mark.parametrize("n", [100, 400])
def test_a_gap_is_what_withstood_pgd_and_fell_later(n):
    least = first(n, GAP)
    for fell, names in ((least - 1, []), (least, ["pgd-gap"])):
        broken_by = torch.full((n,), STANDING)
        broken_by[:fell] = 2
        broken_by[fell : fell + 5] = 1
        pgd = torch.ones(n, dtype=torch.int8)
        pgd[fell : fell + 5] = 0
        apgd = column((64, 1), (n - 64, -1))
        found = verdicts(fgsm=column((n, 1)), pgd=pgd, apgd_t=apgd, broken_by=broken_by)

        flags = told(found)

        assert [flag.name for flag in flags] == names
        assert all(flag.evidence == {"fell": fell, "examples": n, "pgd": ["pgd"]} for flag in flags)


def test_what_fgsm_broke_and_pgd_did_not_is_no_gap():
    n = 200
    broken_by = torch.zeros(n, dtype=torch.int64)
    found = verdicts(fgsm=column((n, 0)), pgd=column((n, 1)), broken_by=broken_by)

    assert [flag.name for flag in told(found)] == ["one-step-beats-many"]


def test_a_ladder_without_comparisons_says_nothing():
    assert told(verdicts(square=column((64, 0)))) == []
    assert told(verdicts(square=column((64, 0)), further=column((64, 1)))) == []
    assert told(verdicts(pgd=column((64, 0)), further=column((64, -1)), unbounded=column((64, -1)))) == []
