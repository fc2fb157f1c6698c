"""A record of any shape is a page or a line, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench.board import build, strangers
from advbench.board.rows import radius
from advbench.record import Cost, Record, load
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


@pytest.fixture
def asked(tmp_path: Path, lay: Lay) -> Callable[[Record], list[str]]:
    """A function: a record -> what is wrong with it, for whoever reads it."""

    def read(record: Record) -> list[str]:
        (path,) = lay(tmp_path, record).rglob("record.json")
        try:
            assert strangers.read(path) == load(path)
        except BadInput as error:
            return [line.removeprefix(f"{path}: ") for line in error.lines]
        return []

    return read


@pytest.mark.parametrize(("count", "fits"), [(10**18, True), (10**18 + 1, False), (-(10**18) - 1, False)])
def test_costs_that_no_sum_holds_are_refused(asked: Any, trained: Any, count: int, fits: bool):
    record = trained("a", [0.5])
    said = [] if fits else ["a cost beyond 1e+18; correct it, or remove the record"]

    assert asked(record.model_copy(update={"cost": Cost(forward=count)})) == said
    for name in ("forward", "backward"):
        epoch = record.history[0].model_copy(update={name: count})
        assert asked(record.model_copy(update={"history": (epoch,)})) == said


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"evaluation": {"attacks": ["fgsm", {"name": "pgd"}]}}, []),
        ({"evaluation": {"attacks": [{"name": "pgd"}, 5]}}, ["job.evaluation.attacks: should be a list of tables"]),
        ({"evaluation": {"attacks": None}, "model": {"extra_data": "ImageNet-1k"}, "until": None}, []),
        ({"until": {"margin": 1, "width": 0.5}}, []),
        ({"until": {"margin": None, "width": "x"}}, ["job.until.width: should be a number"]),
        ({"data": 1, "until": [1]}, ["job.data: should be a table", "job.until: should be a table"]),
        ({"study": {"name": "grow"}}, []),
    ],
)
def test_what_is_there_has_the_shape_that_a_run_gives(asked: Any, make: Any, job: dict[str, Any], said: list[str]):
    assert asked(make("external" if "study" in job else "a").model_copy(update={"job": job})) == said


def test_another_record_of_a_provenance_is_a_table(asked: Any, make: Any):
    record = make()

    assert asked(record.model_copy(update={"provenance": {"until": {"against": "x"}}})) == []
    said = asked(record.model_copy(update={"provenance": {"until": "x"}}))
    assert said == ["provenance.until: should be a table"]
