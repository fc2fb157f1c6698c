"""Which seeds of a label are under one setting: a defense inside another one counts field by field."""

from __future__ import annotations

from typing import Any

import pytest

from advbench.board import settings
from advbench.record import Record


def around(make: Any, seed: int, **base: Any) -> Record:
    record = make("awp", seed=seed)
    inner = {"name": "mine", "file": "mine.py", "sha256": "ab", "beta": 6} | base
    defense = {"name": "awp", "file": None, "sha256": "cd", "gamma": 0.01, "base": inner}
    return record.model_copy(update={"job": {**record.job, "defense": defense}})


def said(records: list[Record], one: Record) -> tuple[str, ...]:
    expected = settings.usual(records) | settings.usual_defense(records)
    return settings.unlike(one, expected)


def test_another_field_of_the_inner_defense_is_another_setting(make: Any):
    seeds = [around(make, 0), around(make, 1), around(make, 2, beta=1)]

    assert said(seeds, seeds[0]) == ()
    assert said(seeds, seeds[2]) == ("defense.base.beta 1, not 6",)


def test_where_its_file_lies_is_not(make: Any):
    seeds = [around(make, 0), around(make, 1), around(make, 2, file="elsewhere/mine.py")]

    assert said(seeds, seeds[2]) == ()


@pytest.mark.parametrize(
    ("theirs", "said_"),
    [
        ([{"name": "fgsm"}], "fgsm, not fgsm, pgd"),
        ([], "none, not fgsm, pgd"),
        (
            [{"name": "fgsm"}, {"name": "pgd", "steps": 40, "label": None}],
            "pgd steps 40, not pgd steps 20",
        ),
        (
            [{"name": "fgsm", "restarts": 2}, {"name": "pgd", "steps": 20, "label": "long"}],
            "fgsm, long, not fgsm, pgd",
        ),
        (
            [{"name": "fgsm", "restarts": 2}, {"name": "pgd", "steps": 40, "label": None}],
            "fgsm restarts 2, pgd steps 40, not fgsm restarts null, pgd steps 20",
        ),
        ("all", 'all, not [{"name": "fgsm"}, {"label": null, "name": "pgd", "steps"...'),
    ],
)
def test_of_other_attacks_only_what_differs_is_said(make: Any, theirs: Any, said_: str):
    def attacked(seed: int, attacks: Any) -> Record:
        record = make("pgd-at", seed=seed)
        evaluation = record.job["evaluation"] | {"attacks": attacks}
        return record.model_copy(update={"job": {**record.job, "evaluation": evaluation}})

    ours = [{"name": "fgsm"}, {"name": "pgd", "steps": 20, "label": None}]
    seeds = [attacked(0, ours), attacked(1, ours), attacked(2, theirs)]

    assert said(seeds, seeds[2]) == (f"evaluation.attacks {said_}",)
