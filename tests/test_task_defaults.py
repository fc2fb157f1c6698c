"""What a task file leaves out, and where the limits of its numbers are."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from advbench.spec import validate
from advbench.task import Data, Defended, Evaluation, Resources, Task, check, placeless


def test_what_is_left_out_means_what_the_readme_of_the_tasks_says():
    assert Data(name="d").plain() == {
        **dict.fromkeys(("path", "size", "classes", "train", "validation", "test", "unlabelled")),
        "name": "d",
        "order": "stratified",
        "seed": 0,
    }
    assert Evaluation().plain() == {
        "attacks": [{"name": "fgsm"}, {"name": "pgd"}, {"name": "autoattack"}],
        "checkpoint": "best",
        "both": False,
        "curve": [],
        "corruptions": None,
        "alone": 64,
        "block": 500,
        "batch": 500,
        "seed": 0,
        "votes": None,
        "distances": None,
        "stop": None,
    }
    assert Resources().plain() == {
        "accelerator": False,
        "threads": 1,
        "deterministic": False,
        "minutes": None,
        "memory_gib": None,
    }
    assert Task.model_fields["collect"].default is None
    defended = Defended(name="pgd-at")
    assert (defended.label, defended.training, defended.collect, defended.fields) == (None, {}, {}, {})


@pytest.mark.parametrize(
    ("kind", "least", "less"),
    [
        (Evaluation, {"votes": 1000}, {"votes": 1001}),
        (Resources, {"memory_gib": 0.25}, {"memory_gib": 0.2}),
        (Data, {"name": "d", "classes": [3, 1]}, {"name": "d", "classes": [3]}),
    ],
)
def test_a_limit_is_where_it_is_said_to_be(kind, least, less):
    assert validate(kind, least)
    with pytest.raises(ValidationError):
        validate(kind, less)


def test_an_attack_of_one_s_own_is_called_as_its_file_unless_it_says_otherwise():
    attacks = [
        {"file": "a/my_attack.py", "steps": 3},
        {"file": "a/my_attack.py", "name": "mine"},
        {"name": "pgd"},
        "fgsm",
    ]
    found = validate(Evaluation, {"attacks": attacks}).attacks

    assert [a.name for a in found] == ["my-attack", "mine", "pgd", "fgsm"]
    assert placeless(found[0].plain()) == {"name": "my-attack", "steps": 3}


def test_a_study_s_file_is_none_of_a_task():
    assert check({"study": {}}) == (
        None,
        ["study: a study has no defenses to judge; `advbench run` and `validate` take its file"],
    )


def test_a_task_has_a_defense():
    tables = {
        "version": 1,
        "title": "T",
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
        "defense": [],
        "threat": {"norm": "L2", "eps": 1},
        "training": {"epochs": 1},
    }
    assert check(tables) == (None, ["defense: should hold at least 1"])
