"""A record of any shape is a page or a line, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench.board import build
from advbench.board.rows import radius
from advbench.record import Record
from advbench.spec import BadInput

Lay = Callable[..., Path]


def told(record: Record, folder: Path, lay: Lay, **changes: Any) -> list[str]:
    """What is said of a record with these `changes`; nothing where a page was made of it."""
    (path,) = lay(folder, record).rglob("record.json")
    raw = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps(raw), "utf-8")
    try:
        build(folder)
    except BadInput as error:
        return [line.removeprefix(f"{path}: ") for line in error.lines]
    return []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        *((name, "text", f"job.{name}: should be a table") for name in ("data", "model", "training", "defense")),
        ("threat", ["Linf"], "job.threat: should be a table"),
        ("deviations", ["epochs"], "job.deviations: should be a table"),
        ("deviations", "epochs", "job.deviations: should be a table"),
        ("evaluation", {"attacks": 5}, "job.evaluation.attacks: should be a list of tables"),
        ("evaluation", {"attacks": [5]}, "job.evaluation.attacks: should be a list of tables"),
        ("model", {"name": "m", "extra_data": ["a"]}, "job.model.extra_data: should be a text"),
        ("until", {"margin": "x"}, "job.until.margin: should be a number"),
    ],
)
def test_a_field_of_another_shape_is_named(tmp_path: Path, lay: Lay, make: Any, field: str, value: Any, said: str):
    record = make()
    assert told(record, tmp_path, lay, job=record.job | {field: value}) == [said]


@pytest.mark.parametrize("missing", ["model", "evaluation"])
def test_of_a_model_from_elsewhere_it_has_to_say_which_and_how_it_was_judged(
    tmp_path: Path, lay: Lay, make: Any, missing: str
):
    record = make("external")
    job = {name: value for name, value in record.job.items() if name not in ("defense", missing)}
    (line,) = told(record, tmp_path, lay, job=job)
    assert line.startswith("job: of a model that was trained elsewhere")


def test_what_a_job_lacks_is_no_fault(tmp_path: Path, lay: Lay, make: Any):
    assert told(make(), tmp_path, lay, job={}) == []


def test_a_radius_that_no_float_holds_is_no_radius(tmp_path: Path, lay: Lay, make: Any):
    beyond = ["1e400", f"{'9' * 400}/1", "1e999999999", "1e-999999999", "nan", "1/0", "x"]
    assert [radius(eps) for eps in beyond] == [0] * len(beyond)
    assert told(make(curve=dict.fromkeys(beyond, 0.5)), tmp_path, lay) == []
