"""A study's task file: what it may say, and ids that follow everything that can change a result and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from advbench.experiment import Experiment, asked, check
from advbench.identity import digest
from advbench.task import Data

RAW: dict[str, Any] = {"version": 1, "title": "T", "study": {"name": "logistic-sharpness"}}


def experiment(**changes: Any) -> Experiment:
    values: dict[str, Any] = {
        "task": "t",
        "title": "T",
        "label": "grow",
        "seed": 0,
        "study": {"name": "grow", "file": None, "sha256": "ab", "width": 3},
        "threads": 1,
    }
    return Experiment.model_validate(values | changes)


def test_five_seeds_unless_asked_otherwise():
    task, errors = check(RAW)
    assert errors == []
    assert task is not None
    assert task.study.seeds == (0, 1, 2, 3, 4)
    two, _ = check({**RAW, "study": {"name": "x", "seeds": 2, "width": 7}})
    assert two is not None
    assert (two.study.seeds, two.study.fields) == ((0, 1), {"width": 7})
    assert task.study.fields == {}
    assert asked(RAW)
    assert not asked({"defense": []})


@pytest.mark.parametrize(
    ("study", "line"),
    [
        ({}, "study: should have a name or a file"),
        ({"name": "x", "file": "y.py"}, "study: should have a name or a file"),
        ({"name": "x", "seeds": 0}, "study.seeds: a number of seeds"),
        ({"name": "x", "seeds": []}, "study.seeds: should hold at least 1"),
        ({"name": "x", "seeds": [1, 1]}, "study: seeds should be distinct"),
    ],
)
def test_bad_tables_are_told(study: dict[str, Any], line: str):
    task, errors = check({**RAW, "study": study})

    assert task is None
    assert len(errors) == 1
    assert errors[0].startswith(line)


def test_what_can_change_a_result_changes_the_id():
    first = experiment()
    others = [
        experiment(seed=1),
        experiment(threads=2),
        experiment(data_sha256="cd"),
        experiment(deterministic=True),
        experiment(protocol=2),
        experiment(data={"name": "digits"}),
        experiment(data={"name": "digits", "train": 9}),
        experiment(study={**first.study, "width": 4}),
        experiment(study={**first.study, "sha256": "cd"}),
    ]

    assert len({one.id for one in [first, *others]}) == 1 + len(others)


def test_an_id_is_the_digest_of_what_can_change_a_result():
    first, data = experiment(seed=4, threads=2), {"name": "digits", "path": "x", "size": 9}
    kept = {"seed": 4, "threads": 2, "protocol": 1, "study": {"sha256": "ab", "width": 3}}

    assert first.id == digest(kept)
    found = first.model_copy(update={"data": Data.model_validate(data)})
    assert found.id == digest(kept | {"data": {"name": "digits", "order": "stratified", "seed": 0}})
    assert (first.path, first.subject, first.accelerator) == ("t/grow-s4", "grow", False)


def test_names_do_not():
    first = experiment()

    assert experiment(task="u", title="U", label="v", instead="mnist").id == first.id
    assert experiment(study={**first.study, "file": "grow.py", "name": "other"}).id == first.id
