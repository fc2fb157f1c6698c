"""What the commands about a results folder print, in full, and the codes they end with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from advbench.cli import app
from advbench.results.clean import litter
from advbench.results.sizes import said
from advbench.spec import BadInput


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path("results")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["results", *words])


def test_without_a_word_it_shows_its_commands_in_plain_lines():
    shown = run().output

    assert all(f"\n  {name} " in shown for name in ("verify", "clean", "merge"))
    assert "Missing command" not in shown
    assert "─" not in shown


def test_verify_counts_what_is_sound_and_says_what_has_no_digest(here: Path, lay):
    def size() -> int:
        return sum(file.stat().st_size for file in here.rglob("*") if file.is_file())

    lay(here, "a")
    done = run("verify")
    assert done.exit_code == 0
    form = "1 of an earlier version, of which only the form was checked"
    assert done.stdout == f"results: 7 files, {said(size())}, {form}: all as written\n"

    (here / "runs" / "t" / "a-s0" / "checkpoint.pt").unlink()
    assert run("verify").stdout == f"results: 6 files, {said(size())}: all as written\n"

    (here / "records" / "t" / "a-s0" / "examples.parquet").unlink()
    done = run("verify", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    missing = "results/records/t/a-s0/examples.parquet: is missing"
    assert told == {"broken": [missing], "files": 5, "size": size(), "unsealed": 0}
    assert done.stdout == json.dumps(told, indent=1) + "\n"


def test_clean_lists_what_can_go_and_then_what_went(here: Path, lay):
    lay(here, "a")
    found = litter(here)
    lines = [f"{said(one.size):>8}  {one.path}  {one.why}" for one in found]
    total = said(sum(one.size for one in found))
    told = [{"path": str(one.path), "why": one.why, "bytes": one.size} for one in found]

    assert len(lines) == 2
    assert run("clean", "--dry-run").stdout.splitlines() == [*lines, f"results: {total} can go"]
    assert run("clean").stdout.splitlines() == [*lines, f"results: {total} gone"]
    assert run("clean").stdout == "results: 0 B gone\n"

    lay(here, "a")
    done = run("clean", "--json")
    told = {"removed": True, "bytes": sum(int(one["bytes"]) for one in told), "found": told}
    assert done.stdout == json.dumps(told, indent=1) + "\n"
    assert litter(here) == []


@pytest.mark.parametrize("name", ["records", "runs"])
def test_clean_takes_a_folder_with_records_or_with_runs_and_no_other(here: Path, name: str):
    here.mkdir()
    refused = run("clean").exception
    assert isinstance(refused, BadInput)
    assert refused.lines == ("results: no records and no runs; give a results folder",)
    assert not any(here.iterdir()), "not even a lock"

    (here / name).mkdir()
    assert run("clean", "--dry-run").stdout == "results: 0 B can go\n"


def test_merge_says_what_is_new_and_what_gave_way(here: Path, lay):
    lay(Path("one"), "a")
    lay(Path("other"), "a", id="another")
    lay(Path("other"), "b")
    lay(Path("other"), "c")
    lay(Path("one"), "c")

    done = run("merge", "other", "one", "--out", "one", "--prefer", "other")
    assert done.stdout.splitlines() == [
        *("new       t/b-s0", "replaced  t/a-s0", "one: 1 new, 1 replaced, 1 there before"),
        "`advbench board one` builds its pages",
    ]
    done = run("merge", "one", "-o", "results", "--json")
    told = {"new": ["t/a-s0", "t/b-s0", "t/c-s0"], "replaced": [], "there": 0}
    assert done.stdout == json.dumps(told, indent=1) + "\n"
