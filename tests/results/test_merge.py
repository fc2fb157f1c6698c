"""Records of several folders become one folder's, each job once, and a conflict changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from advbench.files import sweep, write_bytes, write_json
from advbench.record import Cost, load, load_all
from advbench.results import merge as merging
from advbench.results.merge import merge
from advbench.results.verify import verify
from advbench.spec import BadInput

NONE = np.zeros(20, bool)


@pytest.fixture
def nights(tmp_path: Path, lay) -> tuple[Path, Path]:
    """Two folders with one job in common, which took another time in each."""
    one, other = tmp_path / "one", tmp_path / "other"
    lay(one, "a")
    lay(one, "b")
    lay(other, "b", cost=Cost(train_seconds=99, train_forward=600, train_backward=400))
    lay(other, "c", 1)
    return one, other


def test_what_each_has_comes_once_with_its_weights(tmp_path: Path, nights, contents):
    out = tmp_path / "out"

    done = merge(nights, out)

    assert done == merging.Merged(("t/a-s0", "t/b-s0", "t/c-s1"), (), 0)
    assert [f"{r.label}-s{r.seed}" for r in load_all(out / "records")] == ["a-s0", "b-s0", "c-s1"]
    assert load(out / "records/t/b-s0/record.json").cost.train_seconds == 10, "the first folder's"
    assert verify(out).broken == []
    came = contents(out)
    assert came == {
        name: content for folder in reversed(nights) for name, content in contents(folder).items() if name in came
    }
    assert {name.split("/")[-1] for name in came} == {
        *("record.json", "examples.parquet"),
        *("best.safetensors", "last.safetensors"),
    }


def test_again_it_changes_nothing(tmp_path: Path, nights, contents):
    out = tmp_path / "out"
    merge(nights, out)
    before = contents(out)

    assert merge(nights, out) == merging.Merged((), (), 3)
    assert merge([out, *nights], out) == merging.Merged((), (), 3)
    assert contents(out) == before


@pytest.mark.parametrize("change", ["verdicts", "job"])
def test_a_conflict_is_named_and_changes_nothing_until_somebody_decides(tmp_path: Path, nights, lay, contents, change):
    one, other = nights
    lay(other, "a", **({"stands": NONE} if change == "verdicts" else {"id": "another"}))
    before = contents(tmp_path)

    with pytest.raises(BadInput) as refused:
        merge(nights, one)
    [line] = refused.value.lines
    differ = "their job" if change == "job" else "files, scores"
    assert line == f"t/a-s0: {one} and {other} differ in {differ}; --prefer one of them"
    assert contents(tmp_path) == before

    assert merge(nights, one, prefer=other) == merging.Merged(("t/c-s1",), ("t/a-s0",), 1)
    assert (one / "records/t/a-s0/record.json").read_bytes() == before["other/records/t/a-s0/record.json"]
    assert (one / "records/t/b-s0/record.json").read_bytes() == before["one/records/t/b-s0/record.json"]
    assert verify(one).broken == []


def test_a_finished_job_wins_over_a_failed_try_of_it(tmp_path: Path, lay):
    one, other = tmp_path / "one", tmp_path / "other"
    lay(one, "a", status="failed", error="ValueError: no", scores=None)
    lay(other, "a")

    assert merge([one, other], one).replaced == ("t/a-s0",)
    assert load(one / "records/t/a-s0/record.json").status == "ok"


def test_what_is_damaged_anywhere_is_named_and_changes_nothing(tmp_path: Path, nights, contents):
    one, other = nights
    (one / "records/t/a-s0/examples.parquet").write_bytes(b"")
    (other / "records/t/c-s1/record.json").write_bytes(b"{")
    before = contents(tmp_path)

    with pytest.raises(BadInput) as refused:
        merge(nights, tmp_path / "out")
    first, second = refused.value.lines
    assert first.startswith(f"{one}/records/t/a-s0/record.json: is not what was written; ")
    assert second.startswith(f"{other}/records/t/c-s1/record.json: not a record")
    assert contents(tmp_path) == before


def test_a_disk_that_fills_on_the_way_leaves_the_folder_as_it_was(tmp_path: Path, nights, lay, contents, monkeypatch):
    lay(out := tmp_path / "out", "z")
    before, copies = contents(out), 0

    def fill(*_: object) -> None:
        nonlocal copies
        copies += 1
        if copies == 5:
            raise OSError(28, os.strerror(28))

    monkeypatch.setattr(shutil, "copyfileobj", fill)
    with pytest.raises(BadInput, match="out: cannot be written: No space left on device"):
        merge(nights, out)

    assert contents(out) == before


def test_a_merge_that_was_killed_is_done_again_and_leaves_nothing(tmp_path: Path, nights, command_env, contents):
    code = """\
import os, signal, sys
from pathlib import Path
from advbench.results.merge import merge
replace, moved = Path.replace, []
def dying(self, target):
    moved.append(target)
    if len(moved) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = dying
merge([Path(name) for name in sys.argv[1:3]], Path(sys.argv[3]))
"""
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", code, *nights, out], env=command_env, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((out / "runs").glob(".merge.*.tmp"))

    merge(nights, out)
    sweep(out)
    merge(nights, tmp_path / "undisturbed")
    assert contents(out) == contents(tmp_path / "undisturbed")
    assert not list((out / "runs").glob(".merge.*"))


def test_measures_of_models_without_a_record_come_too(tmp_path: Path, nights):
    one, other = nights
    for folder, value in ((one, 1), (other, 1)):
        write_json(folder / "measures" / "t" / "m" / "measures.json", {"value": value, "files": {}})
    write_bytes(other / "measures" / "t" / "n" / "measures.safetensors", b"arrays")
    write_json(other / "measures" / "t" / "n" / "measures.json", {"value": 2, "files": {}})

    merge(nights, out := tmp_path / "out")
    assert {str(file.relative_to(out)) for file in (out / "measures").rglob("*.*")} == {
        *("measures/t/m/measures.json", "measures/t/n/measures.json", "measures/t/n/measures.safetensors"),
    }
    write_json(one / "measures" / "t" / "n" / "measures.json", {"value": 3, "files": {}})
    with pytest.raises(BadInput, match=r"measures/t/n: .*out and .*one differ; --prefer one of them"):
        merge(nights, out)
    merge(nights, out, prefer=one)
    assert '"value": 3' in (out / "measures" / "t" / "n" / "measures.json").read_text("utf-8")


@pytest.mark.parametrize(
    ("sources", "prefer", "said"),
    [(["empty"], None, "empty: holds no records/"), (["one"], "empty", "empty: is none of the folders; give one of ")],
)
def test_folders_that_make_no_sense_are_refused(tmp_path: Path, nights, sources, prefer, said):
    (tmp_path / "empty").mkdir()

    with pytest.raises(BadInput, match=said):
        merge([tmp_path / name for name in sources], tmp_path / "out", prefer and tmp_path / prefer)


def test_the_command_says_what_came(tmp_path: Path, nights, command):
    done = command(tmp_path, "results", "merge", "one", "other", "-o", "out")

    assert (done.returncode, done.stderr) == (0, "")
    assert "new       t/c-s1" in done.stdout
    assert "out: 3 new, 0 replaced, 0 there before" in done.stdout
