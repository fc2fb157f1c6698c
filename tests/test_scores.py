"""Scores of ledgers that are written by hand: what each rung leaves, what each breaks alone, and what is not known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from advbench.attacks.autoattack import AutoAttack
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.record import Accuracy
from advbench.scores import Verdicts, interval, join, scores

ALL = ["clean", "fgsm", "apgd-ce", "apgd-t", "fab-t", "square"]
BROKEN = [CLEAN, 0, 1, 2, 3, 4, STANDING, STANDING]
"""By FGSM and by each part of AutoAttack one of eight; one is wrong without an attack."""


def column(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int8)


def ledger(broken: list[int] = BROKEN, done: list[str] = ALL) -> Ledger:
    """Parts of AutoAttack alone were tried on the last four."""
    count = len(broken)
    made = Ledger.open(torch.zeros(count, 1, 1, 1), torch.zeros(count, dtype=torch.int64), torch.arange(count))
    made.broken_by = torch.tensor(broken)
    made.distance = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, torch.inf, torch.inf], dtype=torch.float64)[:count]
    made.done = list(done)
    untried = [-1, -1, -1, -1]
    made.withstood = {
        "fgsm": column(0, 0, 1, 1, 1, 1, 1, 1),
        "apgd-ce": column(*untried, 1, 0, 1, 1),
        "apgd-t": column(*untried, 0, 1, 1, 1),
        "fab-t": column(*untried, 1, 1, 1, 1),
        "square": column(-1, -1, -1, -1, -1, -1, -1, -1),
        "curve/1/20": column(0, 1, 1, 1, 1, 1, 1, 1),
        "curve/1/5": column(0, 0, 0, 0, 0, 0, 0, 1),
    }
    return made


def eighths(shares: dict[str, float]) -> dict[str, float]:
    return {name: 8 * share for name, share in shares.items()}


def test_each_rung_leaves_what_nothing_up_to_it_has_broken() -> None:
    found = scores(ledger(), [FGSM(), AutoAttack()], 10)

    assert found.clean == interval(7, 8)
    assert found.robust == interval(2, 8, "autoattack")
    left = {"fgsm": 6, "apgd-ce": 5, "apgd-t": 4, "fab-t": 3, "square": 2, "autoattack": 2}
    assert eighths(found.attacks) == left
    assert list(found.attacks) == list(left)
    assert eighths(found.curve) == {"1/20": 7, "1/5": 1}
    assert found.rejected is None
    # Of the seven that are right the fourth is at .4; the wrong one, at 0, is not among them.
    assert found.distance == 0.4


def test_alone_counts_those_that_were_tried() -> None:
    found = scores(ledger(), [FGSM(), AutoAttack()], 10)

    # An ensemble has broken what any of its parts has; of Square alone nothing is known, and so nothing of the whole.
    assert found.alone == {"fgsm": 6 / 8, "apgd-ce": 3 / 4, "apgd-t": 3 / 4, "fab-t": 1}
    assert found.alone_n == {"fgsm": 8, "apgd-ce": 4, "apgd-t": 4, "fab-t": 4}
    tried = ledger()
    tried.withstood["square"] = column(-1, -1, -1, -1, 1, 1, 1, 1)
    again = scores(tried, [FGSM(), AutoAttack()], 10)
    assert (again.alone["square"], again.alone["autoattack"], again.alone_n["autoattack"]) == (1, 2 / 4, 4)
    tried.withstood["fgsm"] = column(*[0] * 8)
    assert scores(tried, [FGSM()], 10).alone == {"fgsm": 0}


def test_a_ladder_that_was_not_climbed_to_its_end_has_no_robust_accuracy() -> None:
    half = scores(ledger(done=ALL[:-1]), [FGSM(), AutoAttack()], 10)
    assert (half.robust, half.clean) == (None, interval(7, 8))
    assert eighths(half.attacks) == {"fgsm": 6}
    assert half.alone.keys() == {"fgsm"}

    # A rung is known by its number, whatever came of those before it.
    behind = scores(ledger([4, 4, 0, *[STANDING] * 5], ["clean", "fgsm"]), [AutoAttack(), FGSM()], 10)
    assert (behind.robust, eighths(behind.attacks)) == (None, {"fgsm": 6})


@pytest.mark.parametrize(
    ("attacks", "protocol"),
    [([FGSM(), PGD()], "pgd"), ([AutoAttack(), FGSM()], "autoattack"), ([FGSM(), PGD(label="mine")], "mine")],
)
def test_the_strongest_rung_names_what_stands(attacks: list[Any], protocol: str) -> None:
    made = ledger([STANDING] * 8, [*ALL, "pgd", "mine"])
    made.withstood |= {"pgd": column(*[1] * 8), "mine": column(*[1] * 8)}
    found = scores(made, attacks, 10).robust

    assert found == interval(8, 8, protocol)


def test_a_detector_s_refusals_are_a_share_of_all() -> None:
    made = ledger()
    made.detector = True
    made.refused[:3] = True

    assert scores(made, [FGSM()], 10).rejected == interval(3, 8)


def test_no_distance_is_known_where_half_are_out_of_reach_or_none_is_right() -> None:
    made = ledger()
    made.distance[1:] = torch.tensor([0.1, 0.2, 0.3, *[torch.inf] * 4])
    assert scores(made, [FGSM()], 10).distance is None
    assert scores(ledger([CLEAN] * 8), [FGSM()], 10).distance is None


def test_an_interval_is_wilson_s() -> None:
    z, n, share = 1.959963984540054, 8, 7 / 8
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (share * (1 - share) / n + z**2 / (4 * n**2)) ** 0.5

    found = interval(7, 8, "pgd")

    assert found == Accuracy(accuracy=share, low=found.low, high=found.high, n=8, protocol="pgd")
    assert (found.low, found.high) == (pytest.approx(middle - half), pytest.approx(middle + half))


def test_blocks_are_joined_by_what_all_of_them_know() -> None:
    one, other = ledger(), ledger(BROKEN[::-1], ALL[:3])
    one.seconds, other.seconds = 1.5, 2
    del other.withstood["fab-t"]

    whole = join([one, other])

    assert whole.broken_by.tolist() == [*BROKEN, *BROKEN[::-1]]
    assert whole.distance.tolist() == 2 * one.distance.tolist()
    assert (len(whole), whole.done, whole.seconds) == (16, ALL[:3], 3.5)
    assert whole.withstood.keys() == one.withstood.keys() - {"fab-t"}
    assert whole.withstood["fgsm"].tolist() == 2 * one.withstood["fgsm"].tolist()
    # And the other way round, and of one block alone.
    assert join([other, one]).done == ALL[:3]
    assert join([one]).done == one.done
    assert join([one]).withstood.keys() == one.withstood.keys()


def test_verdicts_name_what_broke_each_example() -> None:
    made = ledger()
    rungs = ("fgsm", "apgd-ce", "apgd-t", "fab-t", "square")
    verdicts = Verdicts(rungs, rungs[:4], ("fgsm",), ("fgsm",), made, scores(made, [FGSM(), AutoAttack()], 10))

    assert verdicts.broken_by == ["clean", *rungs, None, None]
    assert (verdicts.passes, verdicts.stopped, verdicts.signs) == ({}, (), None)
