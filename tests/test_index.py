"""The index knows what the records say, and never more than they do."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from advbench.index import Cost, Entry, Index
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


JOB: dict[str, Any] = {
    "model": {"name": "m", "b": 1},
    "data_sha256": "9a",
    "defense": {"name": "d", "steps": 7},
    "training": {"epochs": 3, "batch": 16, "precision": "fp32", "augment": {"flip": True}},
    "evaluation": {"curve": [], "attacks": ["fgsm"], "batch": 4, "seed": 1, "block": 8},
    "threat": {"norm": "Linf", "eps": "1/10"},
    "collect": {"fosc": {"steps": 3}},
}
COST = {
    "train_seconds": 5,
    "train_forward": 600,
    "train_backward": 400,
    "eval_seconds": 7,
    "forward": 30,
    "backward": 20,
    "peak_memory_bytes": 11,
    "collect_seconds": 2,
}
KNOWN = Cost(
    model='{"b":1,"name":"m"}',
    data="9a",
    device="cpu",
    threads=2,
    defense="d",
    engine='["fp32",null,16,{"flip":true}]',
    evaluation='{"attacks":["fgsm"],"curve":[]}',
    threat='{"eps":"1/10","norm":"Linf"}',
    train_seconds=5,
    train_passes=1000,
    eval_seconds=7,
    eval_passes=50,
    test=40,
    collect='{"fosc":{"steps":3}}',
    collect_seconds=2,
    memory=11,
)


def raw(folder: Path, **changes: Any) -> None:
    """A record of which only what the index reads is there."""
    values = {"schema": 1, "id": "one", "status": "ok", "files": {}, "job": JOB, "cost": COST}
    values |= {"provenance": {"device": "cpu", "threads": 2}, "scores": {"clean": {"n": 40}}}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(values | changes), "utf-8")


def test_what_a_job_took_is_kept_with_all_that_it_depends_on(tmp_path: Path):
    raw(folder := tmp_path / "records" / "t" / "a-s0")
    stat = (folder / "record.json").stat()

    assert Index(tmp_path).entry("t/a-s0") == Entry("one", True, True, KNOWN) == kept(tmp_path).entry("t/a-s0")
    beside = [["record.json", stat.st_size, stat.st_mtime_ns]]
    # Whoever changes these fields raises the version.
    assert json.loads(kept(tmp_path).file.read_bytes()) == {
        "version": 4,
        "records": {"t/a-s0": [beside, ["one", True, True, list(KNOWN)]]},
    }


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"cost": {k: v for k, v in COST.items() if k != "collect_seconds"}}, KNOWN._replace(collect_seconds=0)),
        ({"job": {k: v for k, v in JOB.items() if k != "collect"}}, KNOWN._replace(collect="null")),
        ({"status": "failed"}, None),
        ({"provenance": {}}, None),
        ({"scores": None}, None),
    ],
)
def test_a_record_that_says_less_teaches_less(tmp_path: Path, changes: dict[str, Any], found: Cost | None):
    raw(tmp_path / "records" / "t" / "a-s0", **changes)

    assert Index(tmp_path).entry("t/a-s0") == Entry("one", "status" not in changes, True, found)


def test_a_record_of_another_schema_or_with_a_broken_seal_is_told(tmp_path: Path):
    raw(tmp_path / "records" / "t" / "a-s0", schema=2)
    raw(tmp_path / "records" / "t" / "b-s0", sha256="0" * 64)

    assert {path: entry.whole for path, entry in Index(tmp_path).all()} == {"t/b-s0": False}


def test_a_file_that_is_missing_is_noticed_when_it_comes_back(tmp_path: Path):
    table = lay(tmp_path, "t/a-s0") / "examples.parquet"
    content = table.read_bytes()
    table.unlink()

    assert (entry := (index := kept(tmp_path)).entry("t/a-s0"))
    assert not entry.whole
    table.write_bytes(content)
    assert (entry := index.entry("t/a-s0"))
    assert entry.whole


def test_every_file_beside_a_record_counts(tmp_path: Path):
    folder = record_folder(tmp_path, "t/a-s0")
    files = {"a.parquet": b"rows", "b.png": b"dots"}
    save(Record(defense="d", job={}, id="1", task="t", label="a", seed=0, status="ok"), folder, files)
    (folder / "b.png").write_bytes(b"rows")

    assert (entry := Index(tmp_path).entry("t/a-s0"))
    assert not entry.whole


@pytest.mark.parametrize("how", ["damaged", "gone"])
def test_what_can_no_longer_be_read_is_forgotten(tmp_path: Path, how: str):
    record = lay(tmp_path, "t/a-s0") / "record.json"
    lay(tmp_path, "t/b-s0")
    index = kept(tmp_path)
    record.write_bytes(b"{}") if how == "damaged" else record.unlink()

    assert [path for path, _ in index.all()] == ["t/b-s0"]
    index.save()
    assert list(json.loads(index.file.read_bytes())["records"]) == ["t/b-s0"]


def test_what_has_not_changed_is_not_written_again(tmp_path: Path):
    lay(tmp_path, "t/a-s0")
    index = kept(tmp_path)
    index.file.unlink()

    assert index.entry("t/none-s0") is None
    list(index.all())
    index.save()
    assert not index.file.exists()

    lay(tmp_path, "t/b-s0")
    list(index.all())
    index.save()
    index.file.unlink()
    index.save()
    assert not index.file.exists()
