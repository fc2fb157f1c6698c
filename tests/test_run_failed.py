"""Jobs that fail leave a record that says why and are tried again; and which checkpoint fills the scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from own_defense import LOSS, defense_file

from advbench.experiment import Experiment
from advbench.files import Unwritable
from advbench.plan import Item, finished, record_folder
from advbench.record import Record, load
from advbench.resolve import resolve
from advbench.run import attempt, failed, run_job

CPU = torch.device("cpu")


def quiet(*news: object) -> None:
    """Tells nobody."""


def planned(path: Path) -> Item:
    [item] = resolve(path, path.parent / "data", {}).items
    return item


@pytest.mark.parametrize("checkpoint", ["best", "last"])
def test_the_scores_are_those_of_the_checkpoint_that_is_asked_for(tmp_path: Path, tiny, checkpoint):
    path = tiny(
        tmp_path, "t", ("epochs = 1", "epochs = 3"), ("[evaluation]", f'[evaluation]\ncheckpoint = "{checkpoint}"')
    )

    record = run_job(planned(path), tmp_path / "r", tmp_path / "data", CPU, quiet)

    assert record.scores == record.checkpoints[checkpoint]
    other = "last" if checkpoint == "best" else "best"
    assert set(record.checkpoints[other].attacks) == {"pgd-20"}


def doing(line: str) -> str:
    """A defense that does this with its loss."""
    return defense_file(f"loss = {LOSS}", line, "return loss")


@pytest.fixture
def mine(tmp_path: Path, tiny: Callable[..., Path]) -> Callable[[str], Item]:
    """A function: a line of a defense's loss -> its planned job."""

    def make(line: str) -> Item:
        (tmp_path / "mine.py").write_text(doing(line), encoding="utf-8")
        return planned(tiny(tmp_path, "t", ('name = "standard"', 'file = "mine.py"')))

    return make


def tried(item: Item, folder: Path) -> Record:
    record = attempt(item, folder / "r", folder / "data", CPU, quiet)
    assert load(record_folder(folder / "r", item.path) / "record.json") == record
    return record


def test_a_defense_that_raises_leaves_a_failed_record_with_its_traceback(tmp_path: Path, mine):
    record = tried(mine("raise ValueError('no Diverged today')"), tmp_path)

    assert record.status == "failed"
    assert record.error is not None
    assert record.error.startswith("Traceback")
    assert 'mine.py", line 13, in loss' in record.error
    assert record.error.rstrip().endswith("ValueError: no Diverged today")
    assert record.flags == ()
    assert (record.scores, record.files) == (None, {})


def test_a_training_that_diverges_fails_and_is_called_dead(tmp_path: Path, mine):
    record = tried(mine("loss = loss * float('nan')"), tmp_path)

    assert record.status == "failed"
    assert record.error == "Diverged: the training loss is nan in epoch 1 of 1"
    assert [flag.name for flag in record.flags] == ["dead"]


def test_a_failed_job_is_tried_again_and_its_record_replaced(tmp_path: Path, mine):
    assert tried(mine("raise ValueError"), tmp_path).status == "failed"
    item = mine("pass")
    assert not finished(item, tmp_path / "r").cached

    assert tried(item, tmp_path).status == "ok"
    assert finished(item, tmp_path / "r").cached
    # And the other way: what lay beside the good record of another job goes with it.
    item = mine("raise ValueError")
    assert item.job is not None
    failed(item.job, tmp_path / "r", "later")
    assert sorted(p.name for p in record_folder(tmp_path / "r", item.path).iterdir()) == ["record.json"]


COLLECTOR = """\
import os
from advbench.collectors.base import Collector, Measures

class Deadly(Collector):
    name = "deadly"
    about = "Nothing."
    paper = "none"

    def collect(self, scene):
        os._exit(9)
"""


@pytest.mark.slow
def test_a_collector_that_kills_its_job_leaves_the_finished_record_and_is_told(tmp_path: Path, tiny, command):
    folder = record_folder(tmp_path / "results", "t/standard-s0")
    assert command(tmp_path, "run", tiny(tmp_path, "t")).returncode == 0
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (tmp_path / "deadly.py").write_text(COLLECTOR, encoding="utf-8")

    again = command(tmp_path, "run", tiny(tmp_path, "t", more='[collect]\ndeadly = { file = "deadly.py" }\n'))

    assert again.returncode == 1
    assert "FAILED t/standard-s0: the worker process ended: exit code 9" in again.stdout
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    # Where it is said in the worker itself, and the weights have gone.
    shutil.rmtree(tmp_path / "results" / "runs")
    item = planned(tmp_path / "t.toml")
    (tmp_path / "deadly.py").write_text(COLLECTOR + "NEWER = 1\n", encoding="utf-8")
    record = attempt(item, tmp_path / "results", tmp_path / "data", CPU, quiet)
    assert record.status == "failed"
    assert "deadly.py: changed since the plan was made" in record.reason
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_defense_or_data_that_changed_since_the_plan_is_not_run(tmp_path: Path, mine, tiny):
    item = mine("pass")
    (tmp_path / "mine.py").write_text(doing("edited = True"), encoding="utf-8")
    assert "mine.py: changed since the plan was made" in (tried(item, tmp_path).error or "")

    item = planned(tiny(tmp_path, "u"))
    assert item.job is not None
    job = item.job.model_copy(update={"data_sha256": "0" * 64})
    error = tried(item.model_copy(update={"job": job}), tmp_path).error or ""
    assert "the data 'npz' changed since the plan was made" in error


def test_an_interrupt_is_no_failure(tmp_path: Path, mine):
    with pytest.raises(KeyboardInterrupt):
        tried(mine("raise KeyboardInterrupt"), tmp_path)
    assert not (tmp_path / "r" / "records").exists()


def test_a_full_disk_is_no_fault_of_the_job(tmp_path: Path, mine):
    with pytest.raises(Unwritable, match="runs/t/mine-s0: cannot be written: No space left on device"):
        tried(mine("raise OSError(28, 'No space left on device')"), tmp_path)
    assert not (tmp_path / "r" / "records").exists()
    # Any other such error is.
    assert tried(mine("raise OSError(13, 'Permission denied')"), tmp_path).status == "failed"


def test_who_lacks_only_what_is_to_be_collected_keeps_its_record_when_that_fails(tmp_path: Path, mine, tiny):
    item = mine("pass")
    assert item.job is not None
    whole = tried(item, tmp_path)
    asked = planned(tiny(tmp_path, "t", ('name = "standard"', 'file = "mine.py"'), more="[collect]\nmargins = {}\n"))
    assert asked.job is not None

    told = failed(asked.job, tmp_path / "r", "Diverged: one\nand another\n")

    assert (told.status, told.error, told.id) == ("failed", "Diverged: one\nand another\n", asked.job.id)
    assert [(flag.name, flag.message) for flag in told.flags] == [("dead", "and another")]
    file = record_folder(tmp_path / "r", item.path) / "record.json"
    assert load(file) == whole
    # Of another evaluation, or where a file beside it is gone, it is not kept.
    (file.parent / "examples.parquet").unlink()
    assert failed(asked.job, tmp_path / "r", "later").error == load(file).error == "later"


def test_a_study_is_conducted_and_its_failure_written_down(tmp_path: Path, monkeypatch):
    study: Any = {"name": "coins", "file": None, "sha256": "0"}
    job = Experiment(task="t", title="T", label="coins", seed=0, study=study, threads=1)
    item = Item(task="t", label="coins", seed=0, base=tmp_path, job=job)
    monkeypatch.setattr("advbench.run.conduct", lambda *asked: asked)
    how = (tmp_path / "r", tmp_path, CPU, quiet)
    assert attempt(item, *how) == (item, *how)

    def fails(*_: object) -> Record:
        raise ValueError("heads")

    monkeypatch.setattr("advbench.run.conduct", fails)
    record = attempt(item, *how)
    assert (record.status, record.id, record.defense) == ("failed", job.id, "coins")
    assert load(record_folder(tmp_path / "r", "t/coins-s0") / "record.json") == record
