"""`advbench run` from end to end: what is said and what lies on the disk when jobs go well, fail or are skipped."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advbench.execute.lock import locked
from advbench.record import load, load_all
from advbench.stable import stable

DEFENSE = """\
import os, time
from advbench.defense import Defense
from advbench.losses import cross_entropy

class Odd(Defense):
    name = "odd"
    paper = "a test"

    def passes(self):
        return 1, 1

    def loss(self, state, x, y):
        loss = cross_entropy(state.model(x), y).mean()
        DO
        return loss
"""
ODD = {
    "nan": "loss = loss * float('nan')",
    "raises": "raise RuntimeError('no [bold]loss[/bold] :bug: today')",
    "killed": "os.kill(os.getpid(), 9)",
    "leaves": "raise SystemExit(3)",
    "slow": "time.sleep(0.05)",
}


def odd(folder: Path, name: str) -> str:
    """Write a defense that does something odd in its loss; its [[defense]] table."""
    (folder / f"{name}.py").write_text(DEFENSE.replace("DO", ODD[name]), encoding="utf-8")
    return f'[[defense]]\nfile = "{name}.py"\nlabel = "{name}"\n'


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory, tiny, command):
    """A task of two seeds: planned, run, and run again."""
    folder = tmp_path_factory.mktemp("good")
    tiny(folder, "tiny", ("seeds = [0]", "seeds = [0, 1]"))
    before = files(folder)
    planned = command(folder, "run", "tiny.toml", "--dry-run")
    assert files(folder) == before, "--dry-run writes nothing"
    return folder, planned, command(folder, "run", "tiny.toml"), command(folder, "run", "tiny.toml")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tiny, command):
    """Defenses that fail in each way beside one that does not, and a task whose data is not there."""
    folder = tmp_path_factory.mktemp("mixed")
    tiny(folder, "odd", more="".join(odd(folder, name) for name in ("nan", "raises", "killed", "leaves")))
    tiny(folder, "away", ('name = "npz"\npath = "tiny.npz"', 'name = "mnist"'))
    return folder, command(folder, "run", ".", "--jobs", "2")


def test_a_plan_is_shown_and_done(good):
    folder, planned, first, _ = good

    assert planned.returncode == first.returncode == 0, first.stderr
    assert "2 jobs: 2 to run" in planned.stdout
    assert "[2/2, " in first.stdout
    assert "board: results/index.html" in first.stdout
    assert first.stderr == ""
    assert [record.status for record in load_all(folder / "results" / "records")] == ["ok", "ok"]
    assert not list(folder.rglob(".*.tmp"))


def test_a_finished_job_is_not_run_again(good):
    again = good[3]

    assert again.returncode == 0
    assert "2 jobs: 2 cached" in again.stdout
    assert "start" not in again.stdout
    assert "board: results/index.html" in again.stdout


def test_a_fully_cached_run_loads_neither_torch_nor_scikit_learn(good, command_env):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "advbench", "run", "tiny.toml"],
        cwd=good[0],
        env=command_env,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    assert "advbench.suite" in loaded
    assert not loaded & {"torch", "sklearn", "scipy", "pandas", "pyarrow"}


def test_a_cached_run_writes_the_pages_where_a_record_or_a_page_went_or_came(good, command, tmp_path):
    folder = shutil.copytree(good[0], tmp_path / "copy")
    page = folder / "results" / "index.html"
    command(folder, "run", "tiny.toml")

    def rewritten() -> bool:
        page.write_text("mine", "utf-8")
        assert command(folder, "run", "tiny.toml").returncode == 0
        return page.read_text("utf-8") != "mine"

    assert not rewritten(), "nothing has changed"
    (folder / "results" / "board.csv").unlink()
    assert rewritten(), "a page is missing"
    [one, *_] = sorted((folder / "results" / "records" / "tiny").iterdir())
    other = shutil.copytree(one, folder / "results" / "records" / "other" / one.name)
    record = other / "record.json"
    record.write_text(record.read_text("utf-8").replace('"task": "tiny"', '"task": "other"'), "utf-8")
    assert rewritten(), "a record came"
    shutil.rmtree(other)
    assert rewritten(), "a record went"
    assert not rewritten()


def test_a_job_that_was_done_under_another_task_s_name_is_not_done_twice(good, command):
    folder = good[0]
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "copy.toml").write_bytes((folder / "tiny.toml").read_bytes())

    again = command(folder, "run", "mine/copy.toml")

    assert again.returncode == 0
    assert "2 jobs: 2 cached" in again.stdout
    one, other = (
        load(folder / "results" / "records" / name / "standard-s1" / "record.json") for name in ("tiny", "copy")
    )
    assert (other.task, other.job["task"], other.id, other.scores) == ("copy", "copy", one.id, one.scores)
    shutil.rmtree(folder / "results" / "records" / "copy")


def test_a_folder_in_use_is_refused_with_the_name_of_its_user(good, command):
    folder = good[0]
    before = files(folder)
    with locked(folder / "results"):
        done = command(folder, "run", "tiny.toml")

    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"advbench: results: in use by another run (process {os.getpid()} on ")
    assert " since 20" in line
    assert files(folder) == before


@pytest.mark.slow
def test_a_damaged_file_beside_a_record_means_the_job_is_run_again(good, command):
    folder = good[0]
    path = folder / "results" / "records" / "tiny" / "standard-s1" / "examples.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])

    done = command(folder, "run", "tiny.toml")
    assert "2 jobs: 1 to run, 1 cached" in done.stdout
    assert path.read_bytes() == whole


def test_leftovers_of_killed_runs_are_swept_and_strangers_files_are_not(good, command):
    results = good[0] / "results"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = int(dead.stdout)
    ours = [results / "runs" / "tiny" / f".f.{gone}.tmp", results / f".index.html.{gone}.tmp"]
    kept = [results / f".index.html.{os.getpid()}.tmp", results / ".vimrc.tmp", results / "mine" / f".f.{gone}.tmp"]
    (results / "mine").mkdir()
    for path in ours + kept:
        path.touch()

    assert command(good[0], "run", "tiny.toml").returncode == 0
    assert [path for path in ours if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


@pytest.mark.slow
def test_a_failing_defense_fails_alone_and_says_why(mixed):
    folder, done = mixed

    assert done.returncode == 1
    assert done.stderr == ""
    records = {record.label: record for record in load_all(folder / "results" / "records")}
    assert {label for label, record in records.items() if record.status == "ok"} == {"standard"}
    reasons = {
        "nan": "Diverged: the training loss is nan in epoch 1 of 1",
        "raises": "RuntimeError: no [bold]loss[/bold] :bug: today",
        "killed": "the worker process ended: signal 9 (SIGKILL); out of memory is a common cause of SIGKILL",
        "leaves": "the worker process ended: exit code 3",
    }
    told = [line for line in done.stdout.splitlines() if line.startswith("FAILED odd/")]
    for label, reason in reasons.items():
        assert (records[label].error or "").strip().splitlines()[-1] == reason
        assert f"FAILED odd/{label}-s0: {reason}" in told
    assert "raises.py" in (records["raises"].error or ""), "the traceback is kept"


@pytest.mark.slow
def test_the_board_shows_failed_jobs(mixed):
    folder, done = mixed
    page = (folder / "results" / "index.html").read_text(encoding="utf-8")

    assert page.count("FAILED") >= len(ODD) - 1
    assert "FAILED" in done.stdout.partition("robust: fgsm")[2]


@pytest.mark.slow
def test_a_job_without_data_is_skipped_with_the_way_to_get_it_in_the_plan_and_at_the_end(mixed):
    done = mixed[1]
    lines = [line for line in done.stdout.splitlines() if line.startswith("skipped away (standard): ")]

    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "train-images-idx3-ubyte is not there; advbench run --download gets it" in lines[0]
    assert done.stdout.index(lines[0]) < done.stdout.index("start  ") < done.stdout.rindex(lines[1])


@pytest.mark.slow
def test_a_failed_job_is_tried_again_and_only_that(mixed, command):
    folder, _ = mixed
    (folder / "raises.py").write_text(DEFENSE.replace("DO", "pass"), encoding="utf-8")

    done = command(folder, "run", ".", "--only", "odd/r*", "--only", "odd/s*")
    assert done.returncode == 0, done.stdout
    assert "2 jobs: 1 to run, 1 cached" in done.stdout
    assert load(folder / "results" / "records" / "odd" / "raises-s0" / "record.json").status == "ok"


def test_when_every_job_is_skipped_the_code_is_2_and_nothing_is_written(tmp_path: Path, tiny, command):
    tiny(tmp_path, "away", ("tiny.npz", "absent.npz"))
    before = files(tmp_path)
    done = command(tmp_path, "run", "away.toml")

    assert done.returncode == 2
    assert "nothing to run here: every job is skipped, see the reasons above" in done.stdout
    assert "write it with numpy.savez" in done.stdout
    assert files(tmp_path) == before


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_next_run_ends_the_same(tmp_path: Path, tiny, command, command_env):
    tiny(tmp_path, "t", ("epochs = 1", "epochs = 10"), ('[[defense]]\nname = "standard"\n', odd(tmp_path, "slow")))
    started = subprocess.Popen(
        [sys.executable, "-m", "advbench", "run", "t.toml"],
        cwd=tmp_path,
        env=command_env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Whoever started the tests in the background has had SIGINT ignored, for all their children too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    checkpoint = tmp_path / "results" / "runs" / "t" / "slow-s0" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(started.pid, signal.SIGINT)
    out, err = started.communicate(timeout=60)

    assert started.returncode == 130, out + err
    assert out.splitlines()[-1] == "interrupted; nothing is lost: the same command goes on where it stopped"
    assert err == ""
    record = tmp_path / "results" / "records" / "t" / "slow-s0" / "record.json"
    assert not record.exists(), "it was interrupted in the middle"

    assert command(tmp_path, "run", "t.toml").returncode == 0
    assert command(tmp_path, "run", "t.toml", "--results", "whole").returncode == 0
    assert stable(load(record)) == stable(load(tmp_path / "whole" / record.relative_to(tmp_path / "results")))


def test_the_plan_names_what_does_not_know_the_norm(tmp_path: Path, tiny, command):
    tiny(tmp_path, "t", ('"Linf"', '"L1"'), more='[[defense]]\nfile = "only_l2.py"\n')
    source = 'from advbench.defense import Defense\nclass A(Defense):\n    name = "only-l2"\n    paper = ""\n'
    (tmp_path / "only_l2.py").write_text(f'{source}    norms = ("L2",)\n    def passes(self):\n        return 1, 1\n')

    done = command(tmp_path, "run", tmp_path / "t.toml", "--dry-run", "--data-root", tmp_path / "data")

    assert done.returncode == 0, done.stderr
    assert "skipped t (only-l2): only-l2 is not defined for L1" in done.stdout
