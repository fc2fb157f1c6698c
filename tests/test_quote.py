"""`advbench validate`: jobs and cost of task files, the same errors as `run`, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny, command):
    """A swept task of four jobs: validated, run, and validated again."""
    folder = tmp_path_factory.mktemp("quote")
    tiny(folder, "swept", ("seeds = [0]", "seeds = 2"), ('eps = "1/10"', 'eps = ["1/10", "1/5"]'))
    tiny(folder, "away", ("tiny.npz", "absent.npz"))
    before = sorted(folder.rglob("*"))
    first = command(folder, "validate", ".", "--json")
    assert sorted(folder.rglob("*")) == before, "nothing is written"
    ran = command(folder, "run", "swept.toml", "--jobs", "1")
    assert ran.returncode == 0, ran.stderr
    return folder, json.loads(first.stdout), ran, command(folder, "validate", ".", "--jobs", "2")


def test_jobs_and_cost_are_told_per_file_and_kind(done):
    told = done[1]
    files = {Path(file["path"]).name: file for file in told["files"]}

    assert (told["jobs"], told["skipped"]) == (5, 1)
    assert (files["swept.toml"]["jobs"], files["away.toml"]["skipped"]) == (4, 1)
    kinds = files["swept.toml"]["kinds"]
    assert [(kind["task"], kind["jobs"], kind["basis"]) for kind in kinds] == [
        ("swept@eps=1-10", 2, "measured now"),
        ("swept@eps=1-5", 2, "measured now"),
    ]
    assert all(kind["seconds"] > 0 for kind in kinds)
    assert told["seconds"] == pytest.approx(sum(2 * kind["seconds"] for kind in kinds), abs=0.01)
    assert "absent.npz" in files["away.toml"]["kinds"][0]["skip"]


def test_after_a_run_the_cost_is_learned_and_the_run_s_own_plan_says_so_too(done, command):
    folder, _, ran, again = done

    assert again.returncode == 0, again.stderr
    assert "from 4 records" in again.stdout
    assert "4 jobs, about 0 s with 2 workers" in again.stdout
    assert "away would be skipped: " in again.stdout
    assert "(measured now)" in ran.stdout
    (folder / "swept.toml").write_text((folder / "swept.toml").read_text().replace("seeds = 2", "seeds = 3"))
    planned = command(folder, "run", "swept.toml", "--dry-run")
    assert "6 jobs: 2 to run, 4 cached" in planned.stdout
    assert "(from 4 records)" in planned.stdout


def test_a_mistake_is_the_same_line_as_of_run(tmp_path: Path, tiny, command):
    tiny(tmp_path, "t", ("epochs = 1", "epoch = 1"))
    ran, told = command(tmp_path, "run", "t.toml"), command(tmp_path, "validate", "t.toml")

    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == ran.stderr
    assert "no field 'epoch'" in told.stderr
