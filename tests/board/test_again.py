"""The commands that a record's page prints mean the very job of the record, where the page says that they work."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from advbench import cli, reproduce
from advbench.agenda import files
from advbench.board.details import detail
from advbench.board.rows import Row
from advbench.record import Record, load
from advbench.resolve import resolve

WHERE = Path("records/digits-linf/pgd-at-s0")


@pytest.fixture
def record(repo: Path) -> Record:
    return load(repo / "leaderboard" / WHERE / "record.json")


def understood(line: str, command: str) -> dict[str, Any]:
    """What `advbench` takes the line for, as a shell hands it over."""
    advbench, name, *words = shlex.split(line)
    assert (advbench, name) == ("advbench", command)
    with typer.main.get_command(cli.app).commands[name].make_context(name, words) as context:  # pyright: ignore
        return context.params


def test_in_the_folder_of_the_page_its_job_is_reproduced(repo: Path, record: Record, monkeypatch):
    monkeypatch.chdir(repo / "leaderboard")

    asked = understood(detail(Row(record), WHERE)["again"], "reproduce")
    found = reproduce._item(asked["record"], reproduce._record(asked["record"]), asked["task_folder"], repo / "data")

    assert found.job is not None
    assert found.job.id == record.id


@pytest.mark.parametrize("folder", ["tasks", "tasks/board"])
def test_in_the_folder_of_the_task_file_the_same_job_is_run(repo: Path, record: Record, monkeypatch, folder: str):
    monkeypatch.chdir(repo / folder)
    said = detail(Row(record), WHERE)

    asked = understood(said["command"], "run")
    [file] = files(asked["paths"])
    items = resolve(file, repo / "data", {}).items

    assert said["task_file"] == file.name
    assert [item.job.id for item in items if item.job and item.matches(*asked["only"])] == [record.id]


def test_a_task_of_a_sweep_comes_from_the_sweep_s_file(record: Record):
    row = Row(record.model_copy(update={"task": "digits-linf@eps-1_10"}))

    asked = understood(row.command, "run")

    assert [str(path) for path in asked["paths"]] == ["digits-linf.toml"]
    assert asked["only"] == ["digits-linf@eps-1_10/pgd-at-s0"]
