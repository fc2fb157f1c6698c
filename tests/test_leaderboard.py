"""The committed board: it is what its records say, the records are of today's tasks, and one is made again."""

from __future__ import annotations

import io
import math
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from advbench import board
from advbench.board.table import sections
from advbench.experiment import STUDY_PROTOCOL
from advbench.plan import PROTOCOL, Item, Job
from advbench.progress import show_board
from advbench.record import Accuracy, Record, load, load_all, whole
from advbench.resolve import resolve
from advbench.run import run_job
from advbench.spec import validate
from advbench.stable import stable

STARTER = "digits-linf"


@pytest.fixture(scope="module")
def records(repo: Path) -> list[Record]:
    return list(load_all(repo / "leaderboard" / "records"))


@pytest.fixture(scope="module")
def items(repo: Path) -> list[Item]:
    return resolve(repo / "tasks" / f"{STARTER}.toml", repo / "data", {}).items


def accuracies(record: Record) -> list[Accuracy]:
    """Clean and robust."""
    assert record.scores
    assert record.scores.robust
    return [record.scores.clean, record.scores.robust]


@pytest.fixture(scope="module")
def fresh(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board, built again."""
    board.build(repo / "leaderboard", folder := tmp_path_factory.mktemp("fresh"))
    return folder


@pytest.mark.parametrize("name", ["README.md", "index.html", "board.csv", "board.json", "board.tex"])
def test_the_committed_page_is_byte_equal_to_a_fresh_build(repo: Path, fresh: Path, name: str):
    assert (repo / "leaderboard" / name).read_bytes() == (fresh / name).read_bytes()


def test_every_committed_record_is_whole(repo: Path, records: list[Record]):
    home = repo / "leaderboard" / "records"
    broken = [r.id for r in records if not whole(r, home / r.task / f"{r.label}-s{r.seed}")]

    assert records
    assert broken == []
    assert {r.job["protocol"] for r in records if not r.of_study} == {PROTOCOL}
    assert {r.job["protocol"] for r in records if r.of_study} == {STUDY_PROTOCOL}


def test_the_digits_records_are_of_the_board_s_task_as_it_is_today(repo: Path, records: list[Record]):
    committed = {f"{r.task}/{r.label}-s{r.seed}": r.id for r in records if r.task == STARTER}
    items = resolve(repo / "tasks" / "board" / f"{STARTER}.toml", repo / "data", {}).items

    assert committed == {item.path: item.job.id for item in items if item.job}


def test_the_starter_suite_is_a_part_of_the_board(records: list[Record], items: list[Item]):
    committed = {f"{r.task}/{r.label}-s{r.seed}": r.id for r in records if r.task == STARTER}

    assert items
    assert {item.path: item.job.id for item in items if item.job}.items() <= committed.items()


@pytest.mark.slow
def test_standard_training_with_seed_0_comes_out_as_committed(repo: Path, tmp_path: Path, items: list[Item]):
    item = next(item for item in items if item.path == f"{STARTER}/standard-s0")
    committed = load(repo / "leaderboard" / "records" / item.path / "record.json")

    again = run_job(item, tmp_path, repo / "data", torch.device("cpu"), lambda *_: None)

    same = ("torch", "device", "threads", "python", "machine")
    if all(again.provenance[key] == committed.provenance[key] for key in same):
        # A field that came after the record and says nothing is the same job, as its id says too.
        job = validate(Job, committed.job).plain()
        assert stable(again) == stable(committed.model_copy(update={"job": job}))
    for new, old in zip(accuracies(again), accuracies(committed), strict=True):
        # Another machine or build is like another seed: four standard errors of a difference of two accuracies.
        error = math.sqrt(2 * old.accuracy * (1 - old.accuracy) / old.n)
        assert abs(new.accuracy - old.accuracy) <= 4 * error


def test_the_readme_shows_the_standing_that_the_records_hold(repo: Path, records: list[Record], items: list[Item]):
    mine = {item.path for item in items}
    (section,) = sections(r for r in records if f"{r.task}/{r.label}-s{r.seed}" in mine)
    shown = io.StringIO()
    show_board(Console(file=shown, width=100, highlight=False), section)
    readme = (repo / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- standing -->\n```\n(.*?)```", readme, re.DOTALL)

    assert found
    assert found[1].split("board: ")[0].split() == shown.getvalue().split()


@pytest.mark.parametrize(
    ("file", "seeds"), [("mnist/mnist-linf.toml", 3), ("board/mnist-10k-linf.toml", 3), ("board/digits-l2.toml", 5)]
)
def test_the_long_records_are_of_the_task_as_it_is_today(
    repo: Path, records: list[Record], mnist_root: Path, file: str, seeds: int
):
    """Each of its jobs with the seeds that were run."""
    committed = {f"{r.task}/{r.label}-s{r.seed}": r.id for r in records if r.task == Path(file).stem}
    jobs = [item.job for item in resolve(repo / "tasks" / file, mnist_root, {}).items if item.job]

    assert committed == {job.path: job.id for job in jobs if job.seed < seeds}
