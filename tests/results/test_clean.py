"""What goes is what nobody needs: never a record, weights, or the work of an interrupted job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advbench.execute.lock import locked
from advbench.index import Index
from advbench.plan import Item, remember
from advbench.results.clean import litter, remove
from advbench.results.verify import verify


def paths(results: Path) -> set[str]:
    return {str(one.path.relative_to(results)) for one in litter(results)}


def begun(results: Path, label: str) -> Path:
    """The run folder of a job that was interrupted."""
    folder = results / "runs" / "t" / f"{label}-s0"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"half a night")
    return folder


def plan(results: Path, task: Path, *labels: str) -> Path:
    """Keep a plan of `task`; its file."""
    before = set((results / "runs" / "plans").glob("*"))
    items = [Item(task="t", label=label, seed=0, base=results) for label in labels]
    remember(results, task, results, items, [], time.time_ns())
    [file] = set((results / "runs" / "plans").glob("*")) - before
    return file


def test_of_a_finished_job_the_checkpoint_goes_and_the_last_journal_stays(tmp_path: Path, lay, contents):
    lay(tmp_path, "a")
    before = contents(tmp_path)

    assert paths(tmp_path) == {"runs/t/a-s0/checkpoint.pt", "runs/t/a-s0/journal/best/0.previous.safetensors"}
    remove(found := litter(tmp_path))
    after = contents(tmp_path)
    assert set(before) - set(after) == {str(one.path.relative_to(tmp_path)) for one in found}
    assert all(before[name] == content for name, content in after.items())
    assert verify(tmp_path).broken == []
    assert litter(tmp_path) == []


@pytest.mark.parametrize("status", ["interrupted", "failed", "damaged"])
def test_what_a_job_goes_on_from_stays(tmp_path: Path, lay, status):
    if status == "interrupted":
        begun(tmp_path, "a")
    else:
        folder = lay(tmp_path, "a", status="failed" if status == "failed" else "ok")
        if status == "damaged":
            (folder / "examples.parquet").write_bytes(b"")

    assert paths(tmp_path) == set()


def test_the_run_of_a_record_that_was_removed_goes_unless_a_task_still_has_it(tmp_path: Path, lay):
    task = tmp_path / "t.toml"
    task.touch()
    for label in ("gone", "planned", "there"):
        lay(tmp_path, label)
    index = Index(tmp_path)
    list(index.all())
    index.save()
    begun(tmp_path, "never-finished")
    kept = plan(tmp_path, task, "planned", "there")
    for label in ("gone", "planned"):
        for file in (tmp_path / "records" / "t" / f"{label}-s0").iterdir():
            file.unlink()

    there = {"runs/t/there-s0/checkpoint.pt", "runs/t/there-s0/journal/best/0.previous.safetensors"}
    assert paths(tmp_path) == {"runs/t/gone-s0", *there}

    task.unlink()
    assert paths(tmp_path) == {"runs/t/gone-s0", "runs/t/planned-s0", str(kept.relative_to(tmp_path)), *there}
    remove(litter(tmp_path))
    assert (tmp_path / "runs" / "t" / "never-finished-s0" / "checkpoint.pt").exists()
    assert not (tmp_path / "runs" / "t" / "gone-s0").exists()


@pytest.mark.parametrize("where", ["elsewhere", "nowhere", "relative"])
def test_what_the_plan_of_another_folder_needs_stays(tmp_path: Path, lay, monkeypatch, where):
    (work := tmp_path / "work").mkdir()
    (work / "t.toml").touch()
    monkeypatch.chdir(work)
    lay(tmp_path / "results", "a")
    list((index := Index(tmp_path / "results")).all())
    index.save()
    file = plan(tmp_path / "results", Path("t.toml"), "a")
    for beside in (tmp_path / "results" / "records" / "t" / "a-s0").iterdir():
        beside.unlink()
    if where == "nowhere":  # the task of another machine, as far as can be seen from here
        file.write_text(file.read_text("utf-8").replace(str(work), "/not/mounted"), "utf-8")
    if where == "relative":  # as an earlier version wrote it
        file.write_text(file.read_text("utf-8").replace(f"{work}/", ""), "utf-8")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")

    assert paths(tmp_path / "results") == set()
    (work / "t.toml").unlink()
    gone = {"runs/t/a-s0", str(file.relative_to(tmp_path / "results"))}
    assert paths(tmp_path / "results") == (gone if where == "elsewhere" else set())


def test_temporary_files_of_processes_that_have_gone_go(tmp_path: Path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    (tmp_path / "records" / "t" / "a-s0").mkdir(parents=True)
    for pid in (int(dead.stdout), os.getpid()):
        (tmp_path / "records" / "t" / "a-s0" / f".record.json.{pid}.tmp").touch()
    (tmp_path / "records" / "t" / "a-s0" / "record.json.damaged").touch()

    assert paths(tmp_path) == {
        f"records/t/a-s0/.record.json.{int(dead.stdout)}.tmp",
        "records/t/a-s0/record.json.damaged",
    }


def test_the_command_shows_sizes_removes_nothing_when_dry_and_never_under_a_run(tmp_path: Path, lay, command, contents):
    lay(tmp_path / "results", "a")
    before = contents(tmp_path)

    dry = command(tmp_path, "results", "clean", "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert contents(tmp_path) == before
    assert told["removed"] is False
    assert told["bytes"] == sum(len(before[one["path"]]) for one in told["found"]) > 0

    with locked(tmp_path / "results"):
        refused = command(tmp_path, "results", "clean")
    assert (refused.returncode, contents(tmp_path)) == (2, before)
    assert "results: in use by another run" in refused.stderr

    done = command(tmp_path, "results", "clean")
    assert done.returncode == 0
    assert set(before) - set(contents(tmp_path)) == {one["path"] for one in told["found"]}
    assert done.stdout.splitlines()[-1].endswith(" gone")


def test_a_plan_that_nobody_can_read_goes_and_what_went_meanwhile_is_no_error(tmp_path: Path):
    plans = tmp_path / "runs" / "plans"
    plans.mkdir(parents=True)
    for name in ("a.json", "records.json"):
        (plans / name).write_bytes(b"{")
    [found] = litter(tmp_path)
    assert (found.path, found.why, found.size) == (
        plans / "a.json",
        "the plan of no task, which is no longer there",
        1,
    )
    found.path.unlink()
    remove([found])
