"""The command that a record's page gives does what made the record."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from advbench import cli
from advbench.board.rows import Row
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
