"""From a study's file to records, through the real command: own files, missing data, bad input, kills, and no rerun."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from advbench import agenda, board, theory
from advbench.experiment import Experiment
from advbench.index import Index
from advbench.plan import Item, remember
from advbench.record import Record, load
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.spec import BadInput
from advbench.stable import stable

OWN = '''
"""Coins."""

import torch
from pydantic import Field

from advbench.collectors.base import Measures, measure
from advbench.findings import Claim, Plot
from advbench.study import Study


class Coins(Study):
    """How often a coin shows heads."""

    name = "coins"
    about = "Are coins fair?"
    paper = "none"
    seconds = 0.1
    claims = (
        Claim(name="bias", statement="A coin is fair.", source="derived here", required=0.2, sense="at most"),
        Claim(name="heads", statement="It always shows heads.", source="derived here", required=1, sense="at least"),
    )
    plot = Plot(x="throws", y="heads")

    throws: int = Field(default=400, ge=1)

    def run(self, setting):
        heads = torch.rand(self.throws, generator=setting.generator("throws")) < 0.5
        share = heads.double().mean()
        x = torch.arange(1, 5, dtype=torch.float64)
        return Measures(
            {"bias": measure((share - 0.5).abs(), "1", "from a half"), "heads": measure(share, "1", "share")},
            {"x": x, "heads": x * share},
        )
'''

TASK = """
version = 1
title = "Coins"

[study]
file = "coins.py"
seeds = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "coins.py").write_text(OWN)
    (tmp_path / "coins.toml").write_text(TASK)
    return tmp_path


def lines(path: Path, text: str | None = None) -> list[Item]:
    if text is not None:
        path.write_text(text)
    return resolve(path, path.parent, {}).items


def here(item: Item, results: Path) -> Record:
    """The record of a job that is done in this process."""
    return attempt(item, results, results, torch.device("cpu"), lambda *_: None)


def refused(path: Path, text: str) -> str:
    with pytest.raises(BadInput) as told:
        lines(path, text)
    assert len(told.value.lines) == 1
    return told.value.lines[0]


@pytest.mark.slow
def test_from_the_command_to_the_board(folder: Path, command):
    done = command(folder, "run", "coins.toml")

    assert done.returncode == 0, done.stderr
    assert "A coin is fair." in done.stdout
    assert "does not hold" in done.stdout
    records = [load(folder / f"results/records/coins/coins-s{seed}/record.json") for seed in range(3)]
    assert [record.status for record in records] == ["ok"] * 3
    assert len({record.id for record in records}) == 3
    (study,) = json.loads((folder / "results/board.json").read_text())["studies"]
    assert [claim["verdict"] for claim in study["claims"]] == ["holds", "does not hold"]
    assert study["curves"]["x"] == [1, 2, 3, 4]
    again = command(folder, "run", "coins.toml")
    assert "3 cached" in again.stdout
    assert command(folder, "results", "verify", "results").returncode == 0
    refusal = command(folder, "compare", "results/records/coins/coins-s0", "results/records/coins/coins-s1")
    assert refusal.returncode == 2
    assert "a study's records" in refusal.stderr


def test_the_documented_study_runs_as_printed(tmp_path: Path, repo: Path):
    page = (repo / "tasks" / "README.md").read_text("utf-8")
    found = re.search(r"<!-- my-study -->\n```python\n(.*?)```", page, re.DOTALL)
    assert found
    (tmp_path / "coins.py").write_text(found[1])
    for item in lines(tmp_path / "coins.toml", TASK):
        assert here(item, tmp_path / "results").status == "ok"
    board.build(tmp_path / "results")

    (study,) = json.loads((tmp_path / "results/board.json").read_text())["studies"]
    assert [claim["verdict"] for claim in study["claims"]] == ["holds"]
    assert len(study["curves"]["x"]) == 400


@pytest.mark.slow
def test_a_second_run_finds_the_same(folder: Path, command):
    assert command(folder, "run", "coins.toml", "--only", "*-s1").returncode == 0
    one = load(folder / "results/records/coins/coins-s1/record.json")
    [_, item, _] = lines(folder / "coins.toml")

    assert stable(here(item, folder / "two")) == stable(one)


@pytest.mark.slow
def test_a_study_that_raises_fails_alone(folder: Path, command):
    spoilt = OWN.replace("    def run(self, setting):\n", "    def run(self, setting):\n        1 / setting.seed\n")
    (folder / "coins.py").write_text(spoilt)

    done = command(folder, "run", "coins.toml", "--only", "*-s[01]")

    assert done.returncode == 1
    assert "FAILED coins/coins-s0: ZeroDivisionError" in done.stdout
    assert load(folder / "results/records/coins/coins-s1/record.json").status == "ok"


@pytest.mark.slow
def test_a_claim_of_which_a_run_says_nothing_fails_the_job(folder: Path, command):
    (folder / "coins.py").write_text(OWN.replace('"heads": measure(share, "1", "share")', ""))

    done = command(folder, "run", "coins.toml", "--only", "*-s0")

    assert done.returncode == 1
    assert "claims heads and measured no such thing" in done.stdout


def test_a_changed_study_is_another_job(folder: Path):
    before = [item.job.id for item in lines(folder / "coins.toml") if item.job]
    (folder / "coins.py").write_text(f"{OWN}\nEDITED = True\n")
    (changed, *_) = lines(folder / "coins.toml")

    assert changed.job is not None
    assert changed.job.id not in before
    assert isinstance(changed.job, Experiment)
    stale = changed.job.model_copy(update={"study": {**changed.job.study, "sha256": "00"}})
    with pytest.raises(BadInput, match="changed since the plan was made"):
        theory.of(stale, folder)


@pytest.mark.slow
def test_data_that_are_not_here_are_the_embedded_ones_and_it_is_said(folder: Path, command):
    (folder / "l.toml").write_text(
        'version = 1\ntitle = "L"\n[study]\nname = "logistic-sharpness"\neps = [0, 0.2, 0.4]\ndirections = 2\n'
        'seeds = 1\n[data]\nname = "mnist"\nclasses = [0, 1]\n'
    )

    done = command(folder, "run", "l.toml")

    assert done.returncode == 0, done.stderr
    record = load(folder / "results/records/l/logistic-sharpness-s0/record.json")
    assert record.job["instead"] == "mnist"
    assert record.job["data"]["name"] == "digits"
    assert record.measure_notes["logistic-sharpness"][0] == "mnist is not here: the embedded digits in its place"


def test_data_that_come_later_are_looked_at(folder: Path):
    """A kept plan must not go on with the embedded ones."""
    (folder / "l.toml").write_text(
        'version = 1\ntitle = "L"\n[study]\nname = "logistic-sharpness"\nseeds = 1\n'
        '[data]\nname = "npz"\npath = "two.npz"\n'
    )

    def planned() -> tuple[Experiment, bool]:
        results = folder / "results"
        [line], fresh = agenda.lines([folder / "l.toml"], [], results, folder, Index(results), "cpu")
        for file, found in fresh.items():
            remember(results, file, folder, *found)
        assert isinstance(line.job, Experiment)
        return line.job, bool(fresh)

    assert [planned()[0].instead for _ in range(2)] == ["npz", "npz"]
    images, labels = np.full((40, 4, 4), 200, np.uint8), np.arange(40) % 2
    np.savez(folder / "two.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)

    came, kept = planned()
    assert (came.instead, kept) == (None, True)
    assert planned() == (came, False)


def test_bad_input_is_one_line(folder: Path):
    path = folder / "coins.toml"

    assert "no study 'gan-gad'" in refused(path, TASK.replace('file = "coins.py"', 'name = "gan-gad"'))
    assert "study: no field 'throw'; did you mean 'throws'?" in refused(path, TASK + "throw = 3\n")
    assert "study.throws: should be greater than or equal to 1, not 0" in refused(path, TASK + "throws = 0\n")
    assert "makes its own; take the table out" in refused(path, TASK + '[data]\nname = "digits"\n')
    digits = TASK.replace('file = "coins.py"', 'name = "logistic-sharpness"') + '[data]\nname = "digits"\n'
    assert "should name two classes" in refused(path, digits)
    assert "no field 'trainings'" in refused(path, TASK + "[trainings]\n")


def test_a_study_is_not_a_task_to_judge_a_model_by(folder: Path, command):
    done = command(folder, "evaluate", "robustbench:x", "--task", "coins.toml")

    assert done.returncode == 2
    assert "a study has no defenses to judge" in done.stderr


def test_what_a_study_needs_stands_in_its_lines(folder: Path):
    more = "[resources]\nthreads = 2\ndeterministic = true\nminutes = 3.5\nmemory_gib = 1.5\n"
    found = lines(folder / "coins.toml", TASK + more)

    assert [(item.path, item.base, item.seconds) for item in found] == [
        (f"coins/coins-s{seed}", folder, 0.1) for seed in range(3)
    ]
    for seed, item in enumerate(found):
        assert isinstance(item.job, Experiment)
        assert (item.minutes, item.memory_gib, item.job.seed) == (3.5, 1.5, seed)
        assert (item.job.threads, item.job.deterministic, item.job.accelerator) == (2, True, False)
        assert (item.job.title, item.job.data, item.job.data_sha256, item.job.instead) == ("Coins", None, None, None)
    assert folder / "coins.py" in resolve(folder / "coins.toml", folder, {}).watched
