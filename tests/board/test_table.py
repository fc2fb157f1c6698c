from __future__ import annotations

from typing import Any

import pytest

from advbench.board.table import Measured, sections
from advbench.record import Flag, Measure, Record
from advbench.spec import BadInput


def notes(group: Any) -> list[str]:
    return [note.text for note in group.notes]


def test_a_section_says_what_its_records_were_made_under(make: Any) -> None:
    (section,) = sections([make()])
    assert section.setting == "digits · Linf 3/20 · digits-cnn · 30 epochs"
    assert section.protocol == "autoattack on 360 test examples"
    assert section.title == "Digits under Linf 0.15"
    assert section.eps == 0.15


def test_order_is_robust_then_clean_then_label_and_the_unscored_last(make: Any) -> None:
    records = [
        make("failed", error="ValueError: x"),
        make("unattacked", robust=None),
        make("dead", robust=0.0),
        make("b", robust=0.5),
        make("a", robust=0.5),
        make("cleaner", robust=0.5, clean=0.95),
        make("best", robust=0.7, clean=0.1),
    ]
    (section,) = sections(records)
    labels = [group.label for group in section.groups]
    assert labels == ["best", "cleaner", "a", "b", "dead", "unattacked", "failed"]


def test_seeds_stand_in_numeric_order(make: Any) -> None:
    (section,) = sections([make(seed=s) for s in (10, 2, 0)])
    assert [row.record.seed for row in section.rows] == [0, 2, 10]


def test_declared_deviations_are_no_disagreement(make: Any) -> None:
    free = [make("free-at", s, job={"training": {"epochs": 8}, "deviations": {"epochs": 8}}) for s in range(3)]
    (section,) = sections([make(), *free])
    by_label = {group.label: group for group in section.groups}
    # Three of four records train 8 epochs, but the task says 30.
    assert section.setting.endswith("30 epochs")
    assert notes(by_label["free-at"]) == ["trained differently: epochs 8"]
    assert notes(by_label["pgd-at"]) == []


def test_records_of_a_changed_task_file_say_so(make: Any) -> None:
    changed = {"threat": {"eps": "8/255"}, "training": {"epochs": 8}}
    other = make("old", 0, 0.9, job=changed)
    (section,) = sections([make(seed=0), make(seed=1), other])
    assert notes(section.groups[0]) == [
        "1 of 1 under other settings: threat.eps 8/255, not 3/20; training.epochs 8, not 30"
    ]
    assert section.groups[0].marked
    assert not section.groups[1].marked


def test_seeds_of_two_settings_of_one_label_say_so(make: Any) -> None:
    (section,) = sections([make(seed=0), make(seed=1), make(seed=2, job={"defense": {"steps": 7}}), make("other")])
    group = next(g for g in section.groups if g.label == "pgd-at")
    assert notes(group) == ["1 of 3 under other settings: defense.steps 7, not 10"]


def test_a_failed_job_with_a_bare_job_still_shows(make: Any) -> None:
    bare = make("x", error="KeyError: 'data'").model_copy(update={"job": {}})
    (section,) = sections([bare])
    assert (section.title, section.setting, section.protocol, section.eps) == ("t", "", "", 0)
    assert notes(section.groups[0]) == ["1 of 1 FAILED: KeyError: 'data'"]


def outside(record: Record) -> Record:
    """As `advbench evaluate` leaves one of a model that was trained elsewhere."""
    return record.model_copy(update={"job": {key: value for key, value in record.job.items() if key != "defense"}})


def test_trained_and_measured_groups_are_those_with_a_seed_that_is(make: Any) -> None:
    def collected(record: Record, meaning: str) -> Record:
        found = {"b": Measure(value=1, unit="nats", meaning="b"), "a": Measure(value=1, unit="1", meaning=meaning)}
        return record.model_copy(update={"measures": {"fosc": found}})

    records = [make("a", 0), collected(make("a", 1), "older words"), outside(make("external", 0)), make("b")]
    (section,) = sections([collected(make("a", 2), "wiser words"), *records])

    assert [group.label for group in section.groups] == ["a", "b", "external"]
    assert [group.label for group in section.trained] == ["a", "b"]
    assert [group.label for group in section.measured] == ["a"]
    assert section.measures == (Measured("fosc", "a", "1", "wiser words"), Measured("fosc", "b", "nats", "b"))


def test_a_study_is_no_section(make: Any) -> None:
    study = make("study").model_copy(update={"job": {"study": {"name": "grow"}}})
    assert [section.task for section in sections([study, make(task="u")])] == ["u"]


def test_two_records_of_one_seed_are_refused(make: Any) -> None:
    with pytest.raises(BadInput, match="t/pgd-at-s0"):
        sections([make(), make()])


def test_rungs_follow_the_task_and_radii_grow(make: Any) -> None:
    curve = {"1/5": 0.1, "1/20": 0.8, "1/10": 0.5}
    (section,) = sections([make(curve=curve, alone={"square": 0.6, "pgd": 0.6, "apgd-ce": 0.5, "fgsm": 0.8})])
    assert section.rungs == ("fgsm", "pgd", "autoattack")
    assert section.alone == ("fgsm", "pgd", "apgd-ce", "square")
    assert section.radii == ("1/20", "1/10", "1/5")
    assert section.rows[0].curve == [("0", 0, 0.9), ("1/20", 0.05, 0.8), ("1/10", 0.1, 0.5), ("1/5", 0.2, 0.1)]


def test_the_parts_of_an_ensemble_stand_before_it(make: Any) -> None:
    left = {"fgsm": 0.8, "pgd": 0.6, "apgd-ce": 0.55, "square": 0.5, "autoattack": 0.5}
    record = make(attacks=left)
    judged = record.scores.model_copy(
        update={"robust": record.scores.robust.model_copy(update={"protocol": "autoattack"})}
    )
    (section,) = sections([record.model_copy(update={"scores": judged})])
    assert section.rungs == ("fgsm", "pgd", "apgd-ce", "square", "autoattack")


def test_what_no_ladder_names_stands_behind_it_where_no_ensemble_has_it(make: Any) -> None:
    record = make(attacks={"apgd-ce": 0.4, "fgsm": 0.8, "pgd": 0.6})
    other = record.scores.model_copy(update={"robust": record.scores.robust.model_copy(update={"protocol": "mine"})})
    job = {"evaluation": {"attacks": [{"name": "fgsm"}, {"name": "pgd"}]}}
    (section,) = sections([make(job=job).model_copy(update={"scores": other})])
    assert section.rungs == ("fgsm", "pgd", "apgd-ce")


def test_a_stopped_evaluation_is_under_no_other_settings_and_says_what_it_is(make: Any) -> None:
    stopped = Flag(name="stopped", message="", evidence={})
    (section,) = sections([make("a"), make("a", 1), make("b", robust=None, flags=(stopped,))])

    by_label = {group.label: group for group in section.groups}
    assert by_label["b"].robust is None
    assert notes(by_label["b"]) == ["1 of 1 was not attacked to the end, so it has no robust accuracy"]
