"""The id of a model's evaluation: of all that can change the result, and of nothing that only says where it lay."""

from __future__ import annotations

from typing import Any

import pytest

from advbench.external import External, external
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


def name(**changes: Any) -> str:
    tables = dict(TABLES)
    for key, value in changes.items():
        tables[key] = {**tables[key], **value} if isinstance(value, dict) else value
    return validate(External, tables).id


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"weights_sha256": "c" * 64}},
        {"model": {"sources": {"nets.py": "c" * 64}}},
        {"data_sha256": "e" * 64},
        {"data": {"test": 100}},
        {"threat": {"eps": "1/5"}},
        {"threat": {"norm": "L2"}},
        {"evaluation": {"seed": 1}},
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
        {"evaluation": {"batch": 7}},
    ],
)
def test_names_and_places_change_nothing(change: Any) -> None:
    assert name(**change) == name()


def test_a_defense_of_that_name_is_a_training_of_ours_all_the_same() -> None:
    assert external("external", TABLES)
    assert not external("external", TABLES | {"defense": {"name": "external"}})
    assert not external("pgd-at", TABLES)
