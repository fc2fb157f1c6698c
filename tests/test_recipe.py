"""What `[training]` may say: defaults, and where each field ends."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from advbench.recipe import Training, named
from advbench.spec import validate

DEFAULTS: dict[str, Any] = {
    "epochs": 30,
    "seeds": [0, 1, 2],
    "batch": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "cyclic",
    "peak": 0.5,
    "milestones": [0.5, 0.75],
    "decay": 0.1,
    "eps_ramp": 0,
    "warmup": 0,
    "augment": [],
    "label_smoothing": 0,
    "clip_norm": 0,
    "average": 0,
    "precision": "auto",
    "compile": "auto",
    "stop": None,
    "checkpoint_minutes": 5,
}


def made(**fields: Any) -> Training:
    return validate(Training, {"epochs": 30} | fields)


def augmented(name: str, **fields: Any) -> dict[str, Any]:
    return made(augment=[{"name": name, **fields}]).plain()["augment"][0]


def test_what_a_task_leaves_out_is_as_the_table_of_keys_says():
    assert made().plain() == DEFAULTS
    names = ["crop-flip", "cutout", "randaugment"]
    assert made(augment=names).plain()["augment"] == [
        {"name": "crop-flip", "pad": 4},
        {"name": "cutout", "size": 16},
        {"name": "randaugment", "ops": 2, "magnitude": 9},
    ]
    assert made(augment="cutout") == made(augment=["cutout"])


@pytest.mark.parametrize(
    ("field", "allowed", "refused"),
    [
        ("epochs", [1], [0]),
        ("batch", [2], [1]),
        ("lr", [1e-9, 0.5], [0, -0.1]),
        ("momentum", [0, 0.999], [1, -0.001]),
        ("weight_decay", [0, 0.5], [-1e-9]),
        ("peak", [1e-9, 0.999], [0, 1]),
        ("decay", [1e-9, 1], [0, 1.001]),
        ("eps_ramp", [0, 0.5, 29.9], [-0.1, 30, 31]),
        ("warmup", [0, 0.5, 29.9], [-0.1, 30, 31]),
        ("label_smoothing", [0, 0.999], [1, -0.001]),
        ("clip_norm", [0, 0.5], [-1e-9]),
        ("average", [0, 0.999], [1, -0.001]),
        ("checkpoint_minutes", [1e-9, 0.5], [0]),
        ("seeds", [[0], [5, 0], [7]], [[], [-1, 3], [3, -1], [1, 1]]),
        ("milestones", [[], [0.001, 0.999], [0.5, 0.5]], [[0.0, 0.5], [0.5, 1.0], [0.6, 0.5], [-0.5], [0.5, 1.5]]),
        ("stop", ["collapse", None], ["never"]),
    ],
)
def test_where_a_field_ends(field: str, allowed: list[Any], refused: list[Any]):
    for value in allowed:
        assert made(**{field: value}).plain()[field] == value
    for value in refused:
        with pytest.raises(ValidationError):
            made(**{field: value})


@pytest.mark.parametrize(
    ("name", "field", "allowed", "refused"),
    [
        ("crop-flip", "pad", [1], [0]),
        ("cutout", "size", [1], [0]),
        ("randaugment", "ops", [1], [0]),
        ("randaugment", "magnitude", [0, 30], [-1, 31]),
    ],
)
def test_where_an_augmentation_ends(name: str, field: str, allowed: list[int], refused: list[int]):
    for value in allowed:
        assert augmented(name, **{field: value})[field] == value
    for value in refused:
        with pytest.raises(ValidationError):
            augmented(name, **{field: value})


def test_a_number_of_seeds_means_the_first_so_many():
    assert made(seeds=4).seeds == (0, 1, 2, 3)


def test_a_bare_name_stands_for_a_table_and_what_is_no_list_stays():
    assert named(["a", {"name": "b", "c": 1}, 3]) == ({"name": "a"}, {"name": "b", "c": 1}, 3)
    assert named({"name": "a"}) == {"name": "a"}
    assert named("a") == "a"
