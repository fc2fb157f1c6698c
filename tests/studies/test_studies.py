"""What all studies keep to: their claims are those of the first run, and a small run tells what theirs told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load as tensors

from advbench import find
from advbench.collectors.base import Measures
from advbench.record import Record, load
from advbench.spec import validate
from advbench.studies.architecture import Architecture
from advbench.study import Setting, Study
from advbench.task import Data

from small_studies import setting_of  # isort: skip

NAMES = find.names(find.PACKAGE / "studies")
every_study = pytest.mark.parametrize("name", NAMES)

LEAST: dict[str, dict[str, Any]] = {
    "architecture": {"parameters": 1_000, "epochs": 3, "batch": 2, "judged": 1},
    "attack-smoothness": {"ways": 3, "coordinates": 1, "hidden": 1, "training": 0, "attack_steps": 1, "examples": 1}
    | {"directions": 1},
    "dat-scaling": {"hidden": [1], "workers": [1, 2], "batch": 2, "epochs": 1, "draws": 2},
    "fast-at-is-linearised-bilevel": {"eps": [0.1, 1.0], "epochs": 1, "batch": 2, "exact_examples": 1},
    "first-order-dynamics": {"scales": [0.1, 0.2, 3.0], "width": 1, "samples": 1, "starts": 2, "cap": 1, "hidden": 1}
    | {"attack_steps": 1, "epochs": 1, "batch": 1},
    "fosc-convergence": {"epochs": 2, "batch": 2, "weak": 1, "middling": 1, "strong": 1, "step_sizes": [0.1, 0.2, 0.3]},
    "gan-gda": {"widths": [1, 2, 3], "narrow": 1, "wide": 1, "side": 2, "latent": 1, "samples": 1, "steps": 100},
    "gray-box": {"levels": 2, "epochs": 1, "queries": [1, 2], "sst_epochs": 1, "width": 1, "steps": 1},
    "logistic-sharpness": {"eps": [0.0, 0.1, 0.2], "directions": 1, "share": 1.0},
    "narrow-net": {"samples": 2, "steps": 1},
    "relu-perturbation": {"hidden": [1], "epochs": 1, "batch": 1, "attack_steps": 1, "examples": 2}
    | {"strengths": [0.2, 1.0], "weight_decay": 0.0, "eps": 1.0},
}
"""The least of each whole number, the shortest tuple with the least first number, the largest of what has a limit."""
ANY_ORDER = {"hidden", "step_sizes"}
"""Of all other tuples the numbers rise."""

SMALL: dict[str, dict[str, Any]] = {
    "architecture": {"parameters": 1_000, "epochs": 3, "judged": 8},
    "attack-smoothness": {"ways": 3, "coordinates": 2, "hidden": 4, "training": 2, "examples": 4, "directions": 2},
    "dat-scaling": {"hidden": [8], "workers": [1, 2], "batch": 16, "epochs": 1, "draws": 4},
    "fast-at-is-linearised-bilevel": {"eps": [0.1, 0.2], "epochs": 1, "exact_examples": 2},
    "first-order-dynamics": {"scales": [0.1, 1.0, 3.0], "width": 20, "samples": 3, "starts": 2, "cap": 5, "hidden": 8}
    | {"epochs": 1},
    "fosc-convergence": {"epochs": 2, "step_sizes": [0.02, 0.1, 0.5]},
    "gan-gda": {"widths": [2, 128, 129], "steps": 100},
    "gray-box": {"epochs": 1, "queries": [8, 16], "sst_epochs": 1, "width": 2, "steps": 2},
    "logistic-sharpness": {"eps": [0.0, 0.1, 0.2], "directions": 2},
    "narrow-net": {"samples": 48, "steps": 120},
    "relu-perturbation": {"hidden": [8], "epochs": 1, "examples": 16},
}
DONE = {"first-order-dynamics": [*range(7), 8, 10]}
"""Where one part takes as long as two others; all others count one by one."""


def kind_of(name: str) -> type[Study]:
    return find.part(Study, name)


def committed(repo: Path, name: str) -> list[tuple[Path, Record]]:
    files = sorted((repo / "leaderboard" / "records" / name).glob("*/record.json"))
    assert len(files) == 5
    return [(file.parent, load(file)) for file in files]


@every_study
def test_nothing_that_is_claimed_or_left_out_has_moved_since_it_was_run(repo: Path, name: str):
    kind, records = kind_of(name), committed(repo, name)
    for _, record in records:
        said, asked = record.findings, dict(record.job["study"])
        assert said
        assert tuple(claim.model_copy(update={"found": None}) for claim in said.claims) == kind.claims
        assert (said.about, said.paper, said.plot) == (kind.about, kind.paper, kind.plot)
        assert (asked.pop("name"), asked.pop("file")) == (name, None)
        assert asked.pop("sha256")
        assert validate(kind, asked) == kind()
        assert kind.data
        assert record.job["data"] == kind.data.plain()


@every_study
def test_the_least_of_each_number_is_taken_and_less_is_not(name: str):
    kind, least = kind_of(name), LEAST[name]

    def refused(field: str, value: Any) -> bool:
        try:
            validate(kind, {field: value})
        except ValidationError as error:
            return any(item["loc"][:1] == (field,) for item in error.errors())
        return False

    numbers = {field: str(of.annotation) for field, of in kind.model_fields.items()}
    assert {field for field, of in numbers.items() if "int" in of or "tuple" in of} <= least.keys()
    for field, value in least.items():
        assert not refused(field, value)
        if isinstance(value, list):
            assert refused(field, value[:-1])
            if field not in ANY_ORDER:
                assert refused(field, [*value[:-2], value[-1], value[-1]])
                assert refused(field, [value[0] - 1 if value[0] >= 1 else -value[0], *value[1:]]) or value[0] == 0
        elif isinstance(value, int):
            assert refused(field, value - 1)
    for field, of in numbers.items():
        if of == "<class 'float'>" and field not in {"compared", "checked"}:
            assert not refused(field, 1e-6)
            assert refused(field, -1e-6)


class Quick(Architecture):
    """To look for widths and to attack takes longer than to train."""

    def width(self, name: str, shape: object, classes: int) -> int:
        return 2

    def robust(self, model: object, data: object, threat: object, seed: int) -> float:
        return 0.5


QUICK: dict[str, type[Study]] = {"architecture": Quick}


def ran(name: str) -> tuple[Measures, list[tuple[int, int, str]]]:
    kind, told = kind_of(name), list[tuple[int, int, str]]()
    assert kind.data
    data = kind.data.model_copy(update={"train": 48, "validation": 16, "test": 16})
    found = setting_of(kind, 0, Data.model_validate(data.plain()))
    setting = Setting(0, found.device, found.subsets, found.classes, lambda *news: told.append(news))
    return validate(QUICK.get(name, kind), SMALL[name]).run(setting), told


def shape(text: str) -> str:
    """Without its numbers, which are those of the fields."""
    return re.sub(r"\d[\d.,]*", "#", text)


@every_study
def test_a_small_run_tells_what_the_committed_ones_do_and_how_far_it_is(repo: Path, name: str):
    folder, record = committed(repo, name)[0]
    found, told = ran(name)

    theirs = record.measures[name]
    said = {(shape(key), one.unit, shape(one.meaning)) for key, one in found.values.items()}
    assert said == {(shape(key), one.unit, shape(one.meaning)) for key, one in theirs.items()}
    notes = [shape(note) for note in record.measure_notes[name] if "learned nothing" not in note]
    assert [shape(note) for note in found.notes if "learned nothing" not in note] == notes
    lines = tensors((folder / "measures.safetensors").read_bytes())
    assert {shape(line) for line in found.arrays} == {shape(line.split("/", 1)[-1]) for line in lines}
    assert {len(line) for line in found.arrays.values()} == {len(found.arrays["x"])}
    assert found.arrays["x"].dtype == torch.float64
    done, totals = [one[0] for one in told], {one[1] for one in told}
    assert len(totals) == 1
    assert sorted(set(done)) == DONE.get(name, [*range(*totals)])
    assert done == sorted(done)
