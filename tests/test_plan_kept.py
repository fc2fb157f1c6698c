"""A plan that is kept on disk is the plan as it would be resolved, or none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from advbench.plan import Item, recall, record_folder, remember, run_folder
from advbench.resolve import resolve

LINE = Item(task="t", label="a", seed=0, base=Path())


@pytest.mark.parametrize(("after", "is_kept"), [(-1, False), (0, False), (1, True)])
def test_what_may_have_changed_while_it_was_read_is_not_kept(tmp_path: Path, after: int, is_kept: bool):
    (task := tmp_path / "t.toml").touch()
    os.utime(task, ns=(0, 1_000))
    (other := tmp_path / "other").touch()
    os.utime(other, ns=(0, 1_000_000))
    began = other.stat().st_mtime_ns + after
    remember(tmp_path, task, tmp_path, [LINE], [other, tmp_path / "absent"], began)

    assert recall(tmp_path, task, tmp_path) == ([LINE] if is_kept else None)
    (tmp_path / "absent").touch()
    assert recall(tmp_path, task, tmp_path) is None, "what was absent has come"


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


@pytest.fixture
def kept(tmp_path: Path, tiny: Callable[..., Path], monkeypatch) -> tuple[Path, Path, Path, list[Item]]:
    """(results, task file, data root, items) of a plan that is remembered."""
    (tmp_path / "mine.py").write_text(
        'from advbench.defense import Defense\n\nclass Mine(Defense):\n    name = "mine"\n    paper = "none"\n\n'
        "    def passes(self):\n        return 1, 1\n",
        encoding="utf-8",
    )
    # A copy of the package's file list, so that the test may touch one.
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train.py").write_text("", encoding="utf-8")
    monkeypatch.setattr("advbench.resolve.PACKAGE", tmp_path / "package")
    task = tiny(tmp_path, "t", more='[[defense]]\nfile = "mine.py"\n')
    found = resolve(task, tmp_path / "data", {})
    remember(tmp_path / "results", task, tmp_path / "data", found.items, found.watched, time.time_ns())
    return tmp_path / "results", task, tmp_path / "data", found.items


def test_a_plan_is_recalled_as_it_was(kept):
    results, task, root, items = kept

    assert recall(results, task, root) == items
    assert recall(results, task, root.parent) is None
    assert recall(results.parent, task, root) is None


@pytest.mark.parametrize("name", ["t.toml", "mine.py", "data/tiny.npz", "package/train.py"])
def test_a_plan_is_forgotten_when_what_it_depends_on_is_written_or_gone(tmp_path: Path, kept, name):
    results, task, root, items = kept
    stat = (tmp_path / name).stat()
    touch(tmp_path / name)
    assert recall(results, task, root) is None
    os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert recall(results, task, root) == items
    (tmp_path / name).unlink()
    assert recall(results, task, root) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"watched": [], "items": [{"nonsense": 1}]}'])
def test_a_damaged_plan_is_resolved_again(kept, text):
    results, task, root, _ = kept
    [file] = (results / "runs" / "plans").glob("*.json")
    file.write_text(text, encoding="utf-8")

    assert recall(results, task, root) is None


def test_where_things_lie():
    assert record_folder(Path("r"), "t/a-s0") == Path("r/records/t/a-s0")
    assert run_folder(Path("r"), "t/a-s0") == Path("r/runs/t/a-s0")
