"""What may be compared: one thing is changed at a time, and the line names it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from advbench.compare.match import differences, pairs, remarks
from advbench.compare.read import Group, read
from advbench.record import Accuracy, Flag, load, save
from advbench.spec import BadInput

STANDS = np.arange(20) % 4 > 0


def pair(tmp_path: Path, lay_record, **changes):
    """`a` as it is, and `b` with changes."""
    one = read(lay_record(tmp_path / "x", "a", 0, STANDS))
    other = read(lay_record(tmp_path / "y", "b", 0, STANDS, **changes))
    return pairs(one, other, "x", "y")[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"job": {"data_sha256": "7b" * 32}}, "data_sha256 9a9a9a9a9a9a there, 7b7b7b7b7b7b here"),
        ({"job": {"threat": {"norm": "Linf", "eps": "1/5"}}}, "threat.eps 3/20 there, 1/5 here"),
        ({"job": {"threat": {"norm": "L2", "eps": "3/20"}}}, "threat.norm Linf there, L2 here"),
        ({"job": {"protocol": 1}}, "protocol 2 there, 1 here"),
        ({"job": {"evaluation_protocol": 2}}, "evaluation_protocol 3 there, 2 here"),
        ({"job": {"evaluation_protocol": None}}, "evaluation_protocol 3 there, null here"),
        (
            {"job": {"evaluation": {"attacks": [{"name": "pgd", "steps": 10}], "checkpoint": "best"}}},
            "evaluation.attacks[0].steps 20 there, 10 here",
        ),
        ({"index": np.arange(1, 21)}, "test examples: 1 are only there, 1 only here"),
        (
            {"job": {"threat": {"norm": "Linf", "eps": "3/20", "note": "x" * 60}}},
            f"threat.note null there, {'x' * 60} here",
        ),
        (
            {"job": {"threat": {"norm": "Linf", "eps": "3/20", "note": "x" * 61}}},
            f"threat.note null there, {'x' * 57}... here",
        ),
    ],
)
def test_what_answers_two_questions_is_not_compared(tmp_path: Path, lay_record, changes, said):
    with pytest.raises(BadInput, match="cannot be compared; they differ in: ") as error:
        pair(tmp_path, lay_record, **changes)

    assert str(error.value).endswith(said)


def test_fewer_examples_and_other_labels_are_said(tmp_path: Path, lay_record):
    one = read(lay_record(tmp_path / "x", "a", 0, STANDS))
    fewer = read(lay_record(tmp_path / "y", "a", 0, STANDS[:15]))
    other = replace(one[0].first, labels=np.where(np.arange(20) < 3, 7, one[0].first.labels))

    with pytest.raises(BadInput, match=r"differ in: test examples: 5 are only there, 0 only here$"):
        pairs(one, fewer, "x", "y")
    with pytest.raises(BadInput, match=r"differ in: labels of 3 test examples$"):
        pairs(one, [replace(one[0], results=(other,))], "x", "y")


@pytest.mark.parametrize("stopped", ["a", "b"])
def test_what_was_not_attacked_to_the_end_is_under_no_other_protocol(tmp_path: Path, lay_record, stopped):
    def laid(label: str, protocol: str, *flags: Flag) -> Group:
        folder = lay_record(tmp_path, label, 0, STANDS, flags=flags)
        record = load(folder / "record.json")
        assert record.scores
        robust = Accuracy(accuracy=0.75, low=0, high=1, n=20, protocol=protocol)
        scores = record.scores.model_copy(update={"robust": robust})
        beside = {name: (folder / name).read_bytes() for name in record.files}
        save(record.model_copy(update={"scores": scores}), folder, beside)
        return read(folder)[0]

    flags = (Flag(name="dead", message=""), Flag(name="stopped", message=""))
    a, b = (laid(label, f"protocol-{label}", *(flags if label == stopped else ())) for label in "ab")

    assert pairs([a], [b], "x", "y") == [(a, b)]
    with pytest.raises(BadInput, match=r"scores\.protocol protocol-a there, protocol-b here$"):
        pairs([laid("a", "protocol-a", flags[0])], [laid("b", "protocol-b")], "x", "y")


def test_of_a_side_that_failed_nothing_is_asked(tmp_path: Path, lay_record):
    one = read(lay_record(tmp_path / "x", "a", 0, STANDS))
    other = read(lay_record(tmp_path / "y", "a", 0, STANDS[:15], status="failed", error="x"))

    assert pairs(one, other, "x", "y") == [(one[0], other[0])]
    assert pairs(other, one, "x", "y") == [(other[0], one[0])]


def test_what_was_trained_elsewhere_has_no_protocol_of_a_training(tmp_path: Path, lay_record):
    a, b = pair(tmp_path, lay_record, job={"protocol": None, "training": None})

    assert (a.label, b.label) == ("a", "b")
    with pytest.raises(BadInput, match=r"differ in: evaluation_protocol 3 there, 2 here$"):
        pair(tmp_path, lay_record, job={"protocol": None, "training": None, "evaluation_protocol": 2})


def test_a_field_that_says_nothing_is_no_difference(tmp_path: Path, lay_record):
    attacks = [{"name": "pgd", "steps": 20, "label": None}]

    a, b = pair(tmp_path, lay_record, job={"evaluation": {"attacks": attacks, "checkpoint": "best", "stop": None}})

    assert remarks(a, b) == []


def test_what_is_compared_under_a_remark(tmp_path: Path, lay_record):
    flag = Flag(name="dead", message="one class")
    a, b = pair(
        tmp_path,
        lay_record,
        job={"training": {"epochs": 8, "seeds": [1]}},
        provenance={"torch": "2.11.0"},
        flags=(flag,),
    )

    assert remarks(a, b) == [
        "made under other settings: training.epochs 30 there, 8 here",
        "made by other builds: torch 2.11.0 and 2.15.0",
        "B, seed 0: dead",
    ]


def test_where_files_lie_and_what_else_is_run_is_no_other_setting(tmp_path: Path, lay_record):
    lain = {"file": "deeper/mine.py", "base": {"file": "deeper/base.py"}, "name": "a"}
    job = {
        "data": {"name": "digits", "path": "elsewhere", "size": 3},
        "training": {"epochs": 30, "seeds": [1, 2], "checkpoint_minutes": 5},
        "evaluation": {"attacks": [{"name": "pgd", "steps": 20}], "checkpoint": "best", "batch": 7},
        "defense": lain,
    }
    lay_record(tmp_path, "a", 0, STANDS, job={"defense": {"name": "a"}})
    lay_record(tmp_path, "a", 1, np.roll(STANDS, 1), job=job)
    [group] = read(tmp_path)

    assert pairs([group], [group], "x", "y") == [(group, group)]
    assert remarks(group, group) == []


def test_seeds_that_failed_are_said(tmp_path: Path, lay_record):
    lay_record(tmp_path, "a", 0, STANDS)
    lay_record(tmp_path, "a", 1, STANDS, status="failed", error="x")
    [group] = read(tmp_path)

    assert remarks(group, group) == ["A, seed 1: FAILED, and left out", "B, seed 1: FAILED, and left out"]


def test_tables_are_said_in_one_order():
    one, other = {"a": {"y": 1, "x": [2]}, "b": 1}, {"a": {"x": [2], "y": 2}, "b": 1}

    assert differences(one, other) == ['a {"x": [2], "y": 1} there, {"x": [2], "y": 2} here']


def test_seeds_of_two_settings_are_no_group(tmp_path: Path, lay_record):
    for seed in (0, 1, 2):
        lay_record(tmp_path, "a", seed, np.roll(STANDS, seed), job={"defense": {"name": "a", "steps": 7 + seed // 2}})

    groups = read(tmp_path)
    with pytest.raises(BadInput, match=r"a-s2: seeds of two settings: defense.steps 7 there, 8 here"):
        pairs(groups, groups, "x", "y")


def test_two_folders_are_matched_by_name(tmp_path: Path, lay_record):
    for side, labels in (("x", "abc"), ("y", "bcd")):
        for label in labels:
            lay_record(tmp_path / side, label, 0, STANDS)
    x, y = read(tmp_path / "x"), read(tmp_path / "y")

    assert [(a.label, b.label) for a, b in pairs(x, y, "x", "y")] == [("b", "b"), ("c", "c")]
    with pytest.raises(BadInput, match="no task and label in common"):
        pairs(x[:1], y, "x", "y")


def test_where_an_attack_of_one_s_own_lay_is_no_difference_and_what_is_in_it_is(tmp_path: Path, lay_record):
    def laid(label: str, file: str, sha256: str) -> Group:
        rung = {"name": "mine", "file": file, "sha256": sha256}
        job = {"evaluation": {"attacks": [rung], "checkpoint": "best"}}
        lay_record(tmp_path, label, 0, np.ones(20, bool), job=job)
        return read(tmp_path / "records/t" / label)[0]

    here, there, other = (
        laid("a", "mine.py", "1" * 64),
        laid("b", "deeper/mine.py", "1" * 64),
        laid("c", "mine.py", "2"),
    )

    assert pairs([here], [there], "a", "b")
    assert not [text for text in remarks(here, there) if "file" in text]
    with pytest.raises(BadInput, match=r"differ in: evaluation\.attacks\[0\]\.sha256"):
        pairs([here], [other], "a", "c")
