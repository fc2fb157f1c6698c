"""What may be compared: one thing is changed at a time, and the line names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advbench.compare.match import pairs, remarks
from advbench.compare.read import Group, read
from advbench.record import Flag
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
    ],
)
def test_what_answers_two_questions_is_not_compared(tmp_path: Path, lay_record, changes, said):
    with pytest.raises(BadInput, match="cannot be compared; they differ in: ") as error:
        pair(tmp_path, lay_record, **changes)

    assert str(error.value).endswith(said)


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
