"""The index knows what the records say, and never more than they do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from advbench.index import Index
from advbench.plan import known, record_folder
from advbench.record import Record, save


def lay(results: Path, path: str, job_id: str = "1", **changes: Any) -> Path:
    task, rest = path.split("/")
    label, seed = rest.rsplit("-s", 1)
    values: dict[str, Any] = {"id": job_id, "task": task, "label": label, "seed": int(seed), "status": "ok", **changes}
    save(Record(defense="d", job={}, **values), record_folder(results, path), {"examples.parquet": b"rows"})
    return record_folder(results, path)


def kept(results: Path) -> Index:
    """An index that was written and read again."""
    index = Index(results)
    list(index.all())
    index.save()
    return Index(results)


def test_it_says_what_lies_there_before_and_after_it_was_kept(tmp_path: Path):
    lay(tmp_path, "t/a-s0", "one")
    lay(tmp_path, "t/b-s0", "two", status="failed")

    fresh, again = dict(Index(tmp_path).all()), dict(kept(tmp_path).all())
    assert fresh == again
    assert {path: (entry.id, entry.ok, entry.whole) for path, entry in again.items()} == {
        "t/a-s0": ("one", True, True),
        "t/b-s0": ("two", False, True),
    }
    assert Index(tmp_path).entry("t/c-s0") is None
    assert known(tmp_path) == {"one": record_folder(tmp_path, "t/a-s0")}


def test_a_kept_index_reads_no_record_again(tmp_path: Path, monkeypatch):
    lay(tmp_path, "t/a-s0", "one")
    index = kept(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read"))

    entry = index.entry("t/a-s0")
    assert entry is not None
    assert (entry.id, entry.whole) == ("one", True)


def test_asking_writes_nothing(tmp_path: Path):
    lay(tmp_path, "t/a-s0")
    before = sorted(tmp_path.rglob("*"))
    list(Index(tmp_path).all())

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["record.json", "examples.parquet"])
def test_what_was_written_since_is_read_anew(tmp_path: Path, name):
    folder = lay(tmp_path, "t/a-s0", "one")
    index = kept(tmp_path)
    (folder / name).write_bytes(b"{}")

    entry = index.entry("t/a-s0")
    assert entry is None or not entry.whole
    lay(tmp_path, "t/a-s0", "three")
    entry = index.entry("t/a-s0")
    assert entry is not None
    assert (entry.id, entry.whole) == ("three", True)


def test_a_record_of_the_same_size_is_told_by_its_time(tmp_path: Path):
    folder = lay(tmp_path, "t/a-s0", "one")
    index = kept(tmp_path)
    stat = (folder / "record.json").stat()
    lay(tmp_path, "t/a-s0", "two")
    os.utime(folder / "record.json", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))

    entry = index.entry("t/a-s0")
    assert entry is not None
    assert entry.id == "two"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 0, "records": {}}', '{"version": 2, "records": {"t/a-s0": 3}}']
)
def test_a_damaged_index_is_made_anew(tmp_path: Path, text):
    lay(tmp_path, "t/a-s0", "one")
    kept(tmp_path).file.write_text(text, encoding="utf-8")

    entry = Index(tmp_path).entry("t/a-s0")
    assert entry is not None
    assert entry.id == "one"


@pytest.mark.parametrize("raw", [[], {}, {"schema": 0}, {"schema": 1, "files": {}}, "x"])
def test_what_is_no_record_is_none(tmp_path: Path, raw):
    folder = lay(tmp_path, "t/a-s0")
    (folder / "record.json").write_text(json.dumps(raw), encoding="utf-8")

    assert Index(tmp_path).entry("t/a-s0") is None


def test_a_clock_that_went_back_hides_no_change(tmp_path: Path):
    folder = lay(tmp_path, "t/a-s0")
    later = time.time() + 86400
    for file in folder.iterdir():
        os.utime(file, (later, later))
    assert (entry := kept(tmp_path).entry("t/a-s0"))
    assert entry.whole

    table = folder / "examples.parquet"
    table.write_bytes(bytes([table.read_bytes()[0] ^ 1]) + table.read_bytes()[1:])  # of a day before, and as long

    assert (entry := Index(tmp_path).entry("t/a-s0"))
    assert not entry.whole
