"""The id of a model's evaluation: of all that can change the result, and of nothing that only says where it lay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from advbench.external import External, drawn, external, identity
from advbench.spec import validate

TABLES: dict[str, Any] = {
    "task": "t",
    "title": "T",
    "label": "theirs",
    "data": {"name": "digits"},
    "data_sha256": "d" * 64,
    "model": {
        "name": "nets.py:small",
        "weights": "w.pth",
        "weights_sha256": "a" * 64,
        "sources": {"nets.py": "b" * 64},
    },
    "threat": {"norm": "Linf", "eps": "1/10"},
    "evaluation": {"attacks": [{"name": "fgsm"}], "batch": 500},
    "threads": 1,
    "evaluation_protocol": 2,
}


def job(**changes: Any) -> External:
    tables = dict(TABLES)
    for key, value in changes.items():
        tables[key] = {**tables.get(key, {}), **value} if isinstance(value, dict) else value
    return validate(External, tables)


def name(**changes: Any) -> str:
    return job(**changes).id


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"weights_sha256": "c" * 64}},
        {"model": {"sources": {"nets.py": "c" * 64}}},
        {"data_sha256": "e" * 64},
        {"data": {"test": 100}},
        {"threat": {"eps": "1/5"}},
        {"threat": {"norm": "L2"}},
        {"data": {"order": "first"}},
        {"evaluation": {"seed": 1}},
        {"evaluation": {"stop": False}},
        {"evaluation": {"votes": 2}},
        {"until": {"margin": 3}},
        {"evaluation": {"attacks": [{"name": "pgd"}]}},
        {"examples": 10},
        {"threads": 2},
        {"evaluation_protocol": 3},
    ],
)
def test_what_changes_a_result_changes_its_id(change: Any) -> None:
    assert name(**change) != name()


@pytest.mark.parametrize(
    "change",
    [
        {"label": "mine"},
        {"task": "u"},
        {"model": {"name": "code/nets.py:small", "weights": "/elsewhere/w.pth"}},
        {"data": {"train": 100, "path": "x"}},
        {"model": {"checkpoint": "last"}},
        {"evaluation": {"batch": 7}},
        {"evaluation": {"stop": None}},
        {"until": {}},
    ],
)
def test_names_and_places_change_nothing(change: Any) -> None:
    assert name(**change) == name()


def test_a_journal_is_good_for_who_stops_and_for_who_does_not() -> None:
    assert job().journal_id == job(evaluation={"stop": False}).journal_id
    assert job().journal_id == job(evaluation={"batch": 7}).journal_id
    assert job().journal_id != job(evaluation={"seed": 1}).journal_id
    assert job(evaluation={"stop": False}).journal_id != job(evaluation={"stop": False}).id
    assert (len(job().id), job().path, job(seed=2).path) == (16, "t/theirs-s0", "t/theirs-s2")


def test_a_model_is_who_it_is_by_its_digests() -> None:
    known = {"weights_sha256": "a", "sources": {"nets.py": "b"}}
    words = {"name": "nets.py:small", "weights": "w.pth", "checkpoint": "best"}

    assert identity(known | words | {"versions": None}) == known


def test_examples_are_drawn_in_one_order_for_all_time() -> None:
    first = drawn(50, 3)

    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() == drawn(50, 3).tolist() == np.random.default_rng([3, 50]).permutation(50).tolist()
    assert first.tolist() != drawn(50, 4).tolist()


def test_a_defense_of_that_name_is_a_training_of_ours_all_the_same() -> None:
    assert external("external", TABLES)
    assert not external("external", TABLES | {"defense": {"name": "external"}})
    assert not external("pgd-at", TABLES)
