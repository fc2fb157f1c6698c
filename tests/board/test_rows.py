"""The command that a record's page gives does what made the record."""

from __future__ import annotations

import shlex
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from advbench import cli
from advbench.board.rows import Row, outward, radius
from advbench.record import load

OUTSIDE = {"model": {"name": "nets.py:small", "weights": "a b.pth"}, "evaluation": {"stop": None}}
UNTIL = {"margin": 0.07, "width": None, "against": "9a" * 32}


def row(folder: Path, lay_record: Any, job: dict[str, Any], **fields: Any) -> Row:
    where = lay_record(folder, "mine", 0, np.ones(4, bool), defense="external", **fields)
    record = load(where / "record.json")
    kept = {key: value for key, value in record.job.items() if key != "defense"}
    return Row(record.model_copy(update={"job": kept | OUTSIDE | job}))


def understood(command: str) -> dict[str, Any]:
    """What `advbench evaluate` takes the words for, but for what they leave as it is."""
    _, name, *words = shlex.split(command)
    with typer.main.get_command(cli.app).commands[name].make_context(name, words) as context:  # pyright: ignore
        return {key: value for key, value in context.params.items() if value is not None}


@pytest.mark.parametrize(
    ("job", "until", "expected"),
    [
        ({}, None, {}),
        ({"examples": 100}, None, {"examples": 100}),
        ({"until": UNTIL}, "old/x-s0", {"until": "decided", "margin": 7.0, "against": Path("old/x-s0")}),
        (
            {"until": UNTIL | {"width": 0.04}},
            None,
            {"until": "decided", "margin": 7, "width": 4, "against": Path("RECORD")},
        ),
        ({"until": {"margin": None, "width": 0.015, "against": None}}, None, {"until": "decided", "width": 1.5}),
        ({"evaluation": {"stop": False}}, None, {"stop": False}),
        ({"model": OUTSIDE["model"] | {"checkpoint": "last"}}, None, {"checkpoint": "last"}),
    ],
)
def test_an_outside_evaluation_is_asked_for_as_it_was(tmp_path: Path, lay_record, job, until, expected):
    found = row(tmp_path, lay_record, job, provenance={"until": {"against": until}} if until else {})

    plain = understood("advbench evaluate nets.py:small --weights 'a b.pth' --task t.toml --label mine")
    assert understood(found.command) == plain | expected


def test_without_weights_none_are_asked_for_and_of_a_sweep_only_its_task(tmp_path: Path, lay_record):
    found = row(tmp_path, lay_record, {"model": {"name": "Wong2020Fast"}}, task="t@eps-1_10")
    bare = Row(found.record.model_copy(update={"provenance": {}, "job": found.record.job | {"until": UNTIL}}))

    assert found.command == "advbench evaluate Wong2020Fast --task t.toml --only t@eps-1_10 --label mine"
    assert bare.command == f"{found.command} --until decided --against RECORD --margin 7"


def test_a_record_of_ours_is_run_again_by_its_name(make: Any):
    found = Row(make("a b", 2, task="t@eps-1_10"))

    assert (found.name, found.task_file) == ("t@eps-1_10/a b-s2", "t.toml")
    assert found.command == "advbench run t.toml --only 't@eps-1_10/a b-s2'"
    assert found.elsewhere is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        *(("3/20", Fraction(3, 20)), ("0.1", Fraction(1, 10)), ("1e-3", Fraction(1, 1000)), ("2", Fraction(2))),
        *((text, 0) for text in ("x", "", "nan", "1/0", "1e400", f"{'9' * 400}/1", "1e999999999")),
    ],
)
def test_a_radius_is_a_number_or_nought(text: str, number: Fraction):
    assert radius(text) == number


def test_radii_go_outward_and_equal_ones_by_their_text(make: Any):
    assert outward(["1/5", "2/20", "1/10", "0.05"]) == ["0.05", "1/10", "2/20", "1/5"]
    found = Row(make(curve={"1/5": 0.25, "1/10": 0.5}))
    assert found.curve == [("0", 0.0, 0.9), ("1/10", 0.1, 0.5), ("1/5", 0.2, 0.25)]
    assert Row(make()).curve == []


def test_what_a_record_lacks_is_nothing(make: Any):
    bare = Row(make(error="Traceback\nValueError: x").model_copy(update={"job": {}}))

    assert (bare.clean, bare.robust, bare.rung("pgd"), bare.curve, bare.extra_data) == (None, None, None, [], None)
    assert (bare.failed, bare.error, bare.flags, bare.marked) == (True, "ValueError: x", [], False)
    assert Row(bare.record.model_copy(update={"job": {"model": "resnet18"}})).extra_data is None
    whole = Row(make(job={"model": {"extra_data": "ImageNet-1k"}}))
    assert (whole.failed, whole.rung("fgsm"), whole.extra_data, whole.passes) == (False, 0.8, "ImageNet-1k", 5_100_000)
    assert Row(make(), unlike=("threads 2, not 1",)).marked
