"""The seeds of a label together: means, ranges, and what a reader has to know beside them."""

from __future__ import annotations

from typing import Any

import pytest

from advbench.board.rows import Group, Note, Row
from advbench.board.table import sections
from advbench.record import Accuracy, Cost, Flag, Measure

DEAD = Flag(name="dead", message="The model answers with one class.", evidence={"top_class": 1.0})


def notes(group: Any) -> list[str]:
    return [note.text for note in group.notes]


def test_means_and_range_by_hand(make: Any) -> None:
    rows = tuple(Row(make(seed=s, robust=r, clean=c)) for s, r, c in [(0, 0.5, 0.9), (1, 0.6, 0.8), (2, 0.1, 1.0)])
    group = Group("pgd-at", rows)
    assert group.robust == pytest.approx(0.4)
    assert group.clean == pytest.approx(0.9)
    assert (group.lowest, group.highest) == (0.1, 0.6)
    assert group.pgd == pytest.approx(0.6)
    assert group.train_seconds == pytest.approx(11)
    assert group.train_passes == 5_100_000
    assert group.trained
    assert not group.marked
    assert (group.flags, group.notes) == ({}, [])


def test_without_a_score_there_is_no_number(make: Any) -> None:
    alone = make(error="ValueError: x").model_copy(update={"measures": {"c": {"n": MEASURED}}})
    group = Group("a", (Row(alone),))
    numbers = (group.robust, group.clean, group.lowest, group.highest, group.pgd, group.train_seconds)
    assert numbers == (None,) * 6
    assert (group.robusts, group.measures("c", "n")) == ([], [])
    assert Group("a", (Row(make(robust=None)), *group.rows)).clean == 0.9


def test_a_cost_of_nought_is_one_that_nobody_measured(make: Any) -> None:
    costs = (Cost(), Cost(train_seconds=3, train_forward=5, train_backward=2))
    group = Group("a", tuple(Row(make(seed=i).model_copy(update={"cost": cost})) for i, cost in enumerate(costs)))
    assert (group.train_seconds, group.train_passes) == (3, 7)


MEASURED = Measure(value=2.0, unit="1", meaning="m")


def test_measures_are_those_of_the_seeds_that_have_one(make: Any) -> None:
    found = [{"c": {"n": MEASURED}}, {"c": {"n": Measure(value=None, unit="1", meaning="m")}}, {}]
    rows = tuple(Row(make(seed=i).model_copy(update={"measures": one})) for i, one in enumerate(found))
    assert [row.measure("c", "n") for row in rows] == [2.0, None, None]
    assert Group("a", rows).measures("c", "n") == [2.0]
    assert Group("a", rows).measures("c", "other") == []


def test_every_kind_of_note_in_its_order(make: Any) -> None:
    """What failed, what was flagged, then settings; seeds of one remark are counted together."""
    model = {"name": "resnet18", "extra_data": "ImageNet-1k"}
    changed = make(seed=0, job={"model": model, "deviations": {"lr": 0.05, "epochs": 8}}, flags=(DEAD,))
    outside = make("external", 1, rejected=Accuracy(accuracy=0.03, low=0.01, high=0.05, n=360))
    outside.job.pop("defense")
    rows = (
        Row(changed, unlike=("threads 2, not 1",)),
        Row(outside),
        *(Row(make(seed=seed, error="ValueError: x")) for seed in (2, 3)),
    )
    group = Group("a", rows)

    assert group.notes == [
        Note("failed", "2 of 4 FAILED: ValueError: x"),
        Note("flag", "1 of 4 dead"),
        Note("setting", "trained elsewhere: digits-cnn"),
        Note("setting", "refuses 3.0% of untouched images"),
        Note("setting", "pretrained start, extra data: ImageNet-1k"),
        Note("setting", "trained differently: epochs 8, lr 0.05"),
        Note("setting", "1 of 4 under other settings: threads 2, not 1"),
    ]
    assert [row.remark for row in rows] == ["seed 0: dead, other settings", "seed 1", "seed 2", "seed 3"]
    assert [row.marked for row in rows] == [True, False, False, False]
    assert [row.elsewhere for row in rows] == [None, "digits-cnn", None, None]
    assert (group.trained, Group("b", rows[1:2]).trained) == (True, False)


def test_a_failed_seed_alone_marks_the_mean(make: Any) -> None:
    rows = Row(make(seed=0)), Row(make(seed=1, error="ValueError: x"))
    assert [Group("a", rows[:n]).marked for n in (1, 2)] == [False, True]


def test_a_flagged_seed_stays_in_the_mean_and_marks_it(make: Any) -> None:
    (section,) = sections(
        [make(seed=0, robust=0.6), make(seed=1, robust=0.0, flags=(DEAD, DEAD)), make(seed=2, robust=0.6)]
    )
    (group,) = section.groups
    assert group.robust == pytest.approx(0.4)
    assert [row.marked for row in group.rows] == [False, True, False]
    assert group.marked
    assert notes(group) == ["1 of 3 dead"]


def test_flags_are_said_in_plain_words(make: Any) -> None:
    def fallen(best: Any, last: Any) -> Flag:
        evidence = {"best": best, "best_epoch": 75, "last": last, "drop": 0.1}
        return Flag(name="robust-overfitting", message="...", evidence=evidence)

    collapsed = Flag(name="catastrophic-overfitting", message="...")
    odd = Flag(name="robust-overfitting", message="...", evidence={"best": None, "last": [1]})
    records = [
        make("a", 0, flags=(collapsed, fallen(0.521, 0.44))),
        make("a", 1),
        make("a", 2, flags=(fallen(0.5, 0.4),)),
        make("b", flags=(odd,)),
        make("c", flags=(Flag(name="something-new", message="..."),)),
    ]
    (section,) = sections(records)
    by_label = {group.label: group for group in section.groups}
    assert notes(by_label["a"]) == [
        "1 of 3 collapsed",
        "2 of 3 overfitted robustly: PGD fell from 52.1% to 44.0%, from 50.0% to 40.0%",
    ]
    assert notes(by_label["b"]) == ["1 of 1 overfitted robustly"]
    assert notes(by_label["c"]) == ["1 of 1 something-new"]
    remarks = [row.remark for row in by_label["a"].rows]
    assert remarks == ["seed 0: collapsed, overfitted robustly", "seed 1", "seed 2: overfitted robustly"]
    # Data keep the flag's own name.
    assert by_label["a"].flags == {"catastrophic-overfitting": 1, "robust-overfitting": 2}


def test_a_failed_seed_is_no_number_but_a_note(make: Any) -> None:
    trace = "Traceback (most recent call last):\n  File x\nRuntimeError: loss is not finite\n\n"
    (section,) = sections([make(seed=0, robust=0.6), make(seed=1, error=trace), make(seed=2, error="")])
    (group,) = section.groups
    assert group.robust == pytest.approx(0.6)
    assert group.train_seconds == pytest.approx(10)
    assert group.marked
    assert notes(group) == ["1 of 3 FAILED: RuntimeError: loss is not finite", "1 of 3 FAILED: no traceback was kept"]


def test_what_a_detector_refuses_stands_in_the_notes(make: Any) -> None:
    share = Accuracy(accuracy=0.03, low=0.01, high=0.05, n=360)
    (section,) = sections([make(rejected=share)])

    assert notes(section.groups[0]) == ["refuses 3.0% of untouched images"]
