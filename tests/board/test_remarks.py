"""Sentences of the board that are computed: each against records whose answer a person can see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from advbench.board.remarks import CURVATURE, remarks
from advbench.board.support import Standing
from advbench.board.table import Section, sections
from advbench.measures import Measure
from advbench.record import Flag, Record

Make = Callable[..., Record]
QUANTITIES = list(CURVATURE)


def measured(record: Record, **values: float) -> Record:
    """With `collector_name` as a measure, by the number of the quantity: q0, q1, ..."""
    found: dict[str, dict[str, Any]] = {}
    for place, value in values.items():
        collector, name = QUANTITIES[int(place[1:])]
        found.setdefault(collector, {})[name] = Measure(value=value, unit="1", meaning="m")
    return record.model_copy(update={"measures": found})


def one(*records: Record) -> Section:
    (section,) = sections(records)
    return section


def said(section: Section, about: str) -> str:
    return next((line for line in remarks(section) if about in line), "")


def test_real_differences_are_counted_among_all_pairs(make: Make):
    section = one(*(make(name, 0) for name in "abcd"))
    ranks: dict[str, tuple[int, int]] = dict.fromkeys("abcd", (1, 4))
    standing = Standing(ranks=ranks, better={"a": ["c", "d"], "b": ["d"], "c": [], "d": []}, claim="defenses")
    judged = replace(section, standing=standing)

    assert said(judged, "differences").startswith("3 of the 6 ")
    assert said(judged, "differences").endswith("beyond seeds and examples.")
    few = replace(section, standing=replace(standing, claim="checkpoints"))
    assert said(few, "differences").endswith("real, beyond examples.")
    assert not said(section, "differences")


def test_each_budget_names_its_first_and_those_that_share_the_place(trained: Make):
    section = one(
        trained("slow", [0.1, 0.6], forward=50, backward=50, seconds=9.0),
        trained("fast", [0.3, 0.5], seconds=1.0),
        trained("twin", [0.3, 0.6], seconds=1.0),
    )

    words = said(section, "First on validation")
    assert "after 2 epochs slow and twin, 60.0 %" in words
    assert "after 40 passes twin, 60.0 %" in words
    assert "after 2.0 s twin, 60.0 %" in words


def test_a_first_whose_training_has_ended_is_not_set_beside_others_in_silence(trained: Make):
    """After two epochs `short` is at the end of its schedule, and `long` in the middle of its own."""
    short, long = trained("short", [0.3, 0.6]), trained("long", [0.2, 0.5, 0.7])
    other = trained("other", [0.1, 0.2, 0.6])

    words = said(one(short, long, other), "First on validation")
    assert "after 2 epochs short, 60.0 % (where the training of short ends and that of 2 others does not);" in words
    words = said(one(short, long), "First on validation")
    assert "after 2 epochs short, 60.0 % (where the training of short ends and that of 1 other does not);" in words
    # Where the first still trains, or all have ended, nothing speaks for it but its accuracy.
    assert "ends" not in said(one(trained("short", [0.3, 0.1]), long, other), "First").partition(";")[0]
    assert "ends" not in said(one(short, trained("twin", [0.3, 0.5])), "First on validation")


def test_an_order_beyond_chance_is_said_with_its_direction_and_any_other_as_none(make: Make):
    # Eight in one order: p of rho = 1 is 1 / 8! a side. The third jumps up and down.
    jumps = [1, 7, 3, 5, 2, 8, 4, 6]
    records = [
        measured(make(f"d{i}", 0, 0.1 * (i + 1)), q0=float(i), q1=float(-(i**3)), q2=float(jumps[i])) for i in range(8)
    ]

    words = said(one(*records), "Spearman")
    parts = words.split("; it ")
    assert [part.partition(" with ")[0].split()[-1] for part in parts[:2]] == ["rises", "falls"]
    assert f"{CURVATURE[QUANTITIES[0]]} (+1.00)" in parts[0]
    assert f"{CURVATURE[QUANTITIES[1]]} (-1.00)" in parts[1]
    assert "goes neither way" in parts[2]
    # Spearman by hand: 1 - 6 sum d^2 / (n (n^2 - 1)).
    rho = 1 - 6 * sum((i + 1 - rank) ** 2 for i, rank in enumerate(jumps)) / (8 * 63)
    assert f"{CURVATURE[QUANTITIES[2]]} ({rho:+.2f})" in parts[2]
    assert "over 8 defenses" in words


def test_what_would_be_beyond_chance_alone_is_not_among_many(make: Make):
    # rho = -1 of five has p = 2 / 5!: enough alone, and not as the best of five. One swap is 10 / 5!: never enough.
    robust, order, swapped = [0.1, 0.2, 0.3, 0.4, 0.5], [5.0, 4.0, 3.0, 2.0, 1.0], [5.0, 4.0, 3.0, 1.0, 2.0]
    alone = [measured(make(f"d{i}", 0, robust[i]), q0=order[i]) for i in range(5)]
    flat = [1.0, 5.0, 2.0, 4.0, 3.0]
    among = [
        measured(make(f"d{i}", 0, robust[i]), q0=order[i], q1=flat[i], q2=flat[i], q3=flat[i], q4=flat[i])
        for i in range(5)
    ]

    assert "falls with" in said(one(*alone), "Spearman")
    assert "falls with" not in said(
        one(*(measured(make(f"d{i}", 0, robust[i]), q0=swapped[i]) for i in range(5))), "Sp"
    )
    assert "falls with" not in said(one(*among), "Spearman")


def test_too_few_defenses_or_one_value_for_all_say_nothing(make: Make):
    assert not said(one(*(measured(make(f"d{i}", 0, 0.1 * i), q0=float(i)) for i in range(4))), "Spearman")
    assert not said(one(*(measured(make(f"d{i}", 0, 0.1 * i), q0=1.0) for i in range(8))), "Spearman")


def test_flags_are_counted_by_seed_and_their_absence_is_said(make: Make):
    flag = Flag(name="pgd-gap", message="m")
    section = one(make("a", 0, flags=(flag,)), make("a", 1), make("a", 2, flags=(flag,)), make("b", 0))

    assert said(section, "Flags") == "Flags: a withstood PGD and fell to stronger attacks on 2 of 3 seeds."
    assert said(one(make("a", 0), make("b", 0)), "flag") == "No seed of 2 raised a flag."


def test_of_two_rows_there_is_one_difference(make: Make):
    standing = Standing(ranks={"a": (1, 1), "b": (2, 2)}, better={"a": ["b"], "b": []}, claim="checkpoints")
    two = replace(one(make("a", 0), make("b", 0)), standing=standing)

    assert said(two, "differences") == "1 of the 1 differences between two rows are real, beyond examples."
    assert not said(replace(two, standing=replace(standing, ranks={"a": (1, 1)})), "differences")


def test_quantities_of_one_verdict_are_told_together_with_how_many_defenses_have_them(make: Make):
    records = [measured(make(f"d{i}", 0, 0.1 * (i + 1)), q0=float(i), q1=float(i), q2=float(i)) for i in range(8)]
    few = [records[i].measures for i in range(8)]
    for measures in few[:2]:
        measures.pop(QUANTITIES[2][0])
    words = said(one(*records), "Spearman")

    first, second, third = (CURVATURE[name] for name in QUANTITIES[:3])
    assert f"robust accuracy rises with {first} (+1.00), {second} (+1.00) and {third} (+1.00). These are" in words
    assert "over 6 to 8 defenses" in words
    unscored = make("none", 0, None)
    assert said(one(*records, measured(unscored, q0=9.0)), "Spearman") == words


def test_without_records_there_is_nothing_to_say(make: Make):
    section = one(make("a", 0))

    assert remarks(replace(section, groups=())) == []
    assert remarks(section) == ["No seed of 1 raised a flag."]
