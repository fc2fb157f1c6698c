"""From a path to records: each way to name them, those that failed, and where the files of each go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from advbench.interop.found import find, names
from advbench.record import load
from advbench.spec import BadInput

Lay = Callable[..., Path]


def test_a_record_is_named_by_itself_its_folder_its_task_and_its_results(tmp_path: Path, lay: Lay):
    one, other = lay(tmp_path, seed=0), lay(tmp_path, "dat", task="another")
    both = sorted([one, other])

    assert find(one / "record.json").files == [one / "record.json"]
    assert find(one).files == [one / "record.json"]
    assert find(one.parent).files == [one / "record.json"]
    assert find(tmp_path / "records").files == find(tmp_path).files == [folder / "record.json" for folder in both]
    assert [find(path).one for path in (one, tmp_path)] == [True, False]


def test_one_record_goes_into_the_folder_itself_and_several_into_their_own(tmp_path: Path, lay: Lay):
    one, out = lay(tmp_path, seed=0), Path("out")
    assert find(one).place(one, out) == out
    lay(tmp_path, seed=1)

    assert names(one) == ("cifar10-linf", "pgd-at-s0")
    assert find(tmp_path).place(one, out) == out / "cifar10-linf" / "pgd-at-s0"


def test_jobs_that_failed_are_passed_over_and_counted(tmp_path: Path, lay: Lay):
    folders = [lay(tmp_path, seed=seed, error="RuntimeError: x" if seed % 3 else None) for seed in range(5)]
    found = find(tmp_path)
    assert found.failed == 0

    assert [(folder, record.seed) for folder, record in found.finished()] == [(folders[0], 0), (folders[3], 3)]
    assert found.failed == 3
    assert [record.seed for _, record in found.all()] == [0, 1, 2, 3, 4]
    # And once more, from the beginning.
    assert len([*found.finished()]) == 2
    assert found.failed == 3


def test_where_nothing_finished_it_is_said_why(repo: Path, tmp_path: Path, lay: Lay):
    failed = lay(tmp_path, error="RuntimeError: x")
    with pytest.raises(BadInput) as caught:
        list(find(failed).finished())
    assert caught.value.lines == (f"{failed}: every job FAILED: nothing to export; run them again",)

    study = repo / "leaderboard" / "records" / "gan-gda" / "gan-gda-s0"
    assert load(study / "record.json").of_study
    assert [*find(study).all()] == []
    with pytest.raises(BadInput) as caught:
        list(find(study).finished())
    assert caught.value.lines == (f"{study}: studies have claims, which the board shows: nothing to export",)
