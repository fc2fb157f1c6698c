"""From paths to verdicts, and every way in which they can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from advbench.compare.read import read
from advbench.record import load, save
from advbench.spec import BadInput

STANDS = np.arange(20) % 4 > 0


@pytest.fixture
def laid(tmp_path: Path, lay_record) -> Path:
    """A results folder: three seeds of `a`, one of `a-small`."""
    for seed in (2, 0, 1):
        lay_record(tmp_path, "a", seed, np.roll(STANDS, seed))
    lay_record(tmp_path, "a-small", 0, STANDS)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("records/t/a-s0", ["t/a-s0"]),
        ("records/t/a-s0/record.json", ["t/a-s0"]),
        ("records/t/a", ["t/a (3 seeds)"]),
        ("records/t/a-small", ["t/a-small-s0"]),
        ("records/t", ["t/a (3 seeds)", "t/a-small-s0"]),
        ("records", ["t/a (3 seeds)", "t/a-small-s0"]),
        ("", ["t/a (3 seeds)", "t/a-small-s0"]),
    ],
)
def test_a_path_names_a_record_a_defense_a_task_or_all(laid: Path, path: str, names: list[str]):
    assert [group.name for group in read(laid / path)] == names


def test_verdicts_come_in_the_order_of_the_index(tmp_path: Path, lay_record):
    clean = np.arange(20) > 2
    folder = lay_record(tmp_path, "a", 0, STANDS, clean=clean, index=np.arange(20)[::-1].copy())

    [group] = read(folder)

    assert group.first.index.tolist() == list(range(20))
    assert group.first.clean.tolist() == clean[::-1].tolist()
    assert group.first.robust is not None
    assert group.first.robust.tolist() == (STANDS & clean)[::-1].tolist()
    assert group.first.rungs()["pgd"].tolist() == (STANDS & clean)[::-1].tolist()


def test_seeds_come_in_order(laid: Path):
    [group] = read(laid / "records/t/a")

    assert group.seeds == [0, 1, 2]


def test_the_committed_rungs_add_up_to_their_scores(repo: Path):
    for group in read(repo / "leaderboard"):
        for result in group.results:
            assert result.record.scores
            assert result.record.scores.robust
            assert result.robust is not None
            assert list(result.rungs()) == list(result.record.scores.attacks)
            assert result.robust.mean() == pytest.approx(result.record.scores.robust.accuracy)


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        read(path)
    assert len(error.value.lines) == 1
    return error.value.lines[0]


def test_nothing_there(tmp_path: Path):
    assert "holds no record; give a record.json" in refused(tmp_path)
    assert "no such file or folder" in refused(tmp_path / "absent" / "deeper")
    assert "no such file or folder, and no seeds of that name" in refused(tmp_path / "absent")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 7}', "record schema 7, this advbench reads 1"),
        ("[" * 100_000, "nested too deeply"),
        ('{"schema": 1, "a": ' + "9" * 5000 + "}", "... is not a number that a record can hold"),
        ("{", "not a record"),
        ("[]", "record schema None"),
        ('"../../etc/passwd"', "record schema None"),
    ],
)
def test_json_that_is_no_record(laid: Path, text: str, said: str):
    file = laid / "records/t/a-s0/record.json"
    file.write_text(text, "utf-8")

    assert said in refused(file)


@pytest.mark.parametrize(("where", "value"), [("accuracy", "NaN"), ("accuracy", "Infinity"), ("accuracy", "1e999")])
def test_scores_that_are_no_numbers(laid: Path, where: str, value: str):
    file = laid / "records/t/a-s0/record.json"
    raw = json.loads(file.read_text("utf-8"))
    raw["scores"]["clean"][where] = "HERE"
    file.write_text(json.dumps(raw).replace('"HERE"', value), "utf-8")

    assert f"{value} is not a number that a record can hold" in refused(file)


def resaved(folder: Path, examples: bytes) -> Path:
    """The record with another table beside it, and its digest."""
    save(load(folder / "record.json"), folder, {"examples.parquet": examples})
    return folder


def test_tables_that_are_not_what_the_record_was_written_with(laid: Path):
    folder = laid / "records/t/a-s0"
    file = folder / "examples.parquet"
    whole = file.read_bytes()

    file.write_bytes(whole[:-50])
    assert "not the file that the record was written with" in refused(folder)
    assert "not a whole table of examples" in refused(resaved(folder, whole[:-50]))
    assert "not a whole table of examples" in refused(resaved(folder, b""))
    file.unlink()
    assert "missing; a comparison needs the verdicts" in refused(folder)


def test_examples_twice_too_few_or_otherwise_than_the_score(laid: Path, lay_record, tmp_path: Path):
    twice = lay_record(tmp_path / "x", "a", 0, STANDS, index=np.arange(20) // 2)
    assert "10 examples have an index that others have too" in refused(twice)

    few = lay_record(tmp_path / "y", "a", 0, STANDS[:15])
    table = (few / "examples.parquet").read_bytes()
    assert "15 examples, and the record says 20" in refused(resaved(laid / "records/t/a-s0", table))

    better = lay_record(tmp_path / "z", "a", 0, np.ones(20, bool))
    table = (better / "examples.parquet").read_bytes()
    said = refused(resaved(laid / "records/t/a-s1", table))
    assert "robust accuracy is 75.00% in the record, 100.00% by its examples" in said


def test_a_table_without_its_columns(laid: Path, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"index": [0]}), tmp_path / "x.parquet")

    assert "not a whole table" in refused(resaved(laid / "records/t/a-s0", (tmp_path / "x.parquet").read_bytes()))


def test_one_checkpoint_is_not_three_seeds(tmp_path: Path, lay_record):
    for seed in (0, 1, 2):
        lay_record(tmp_path, "a", seed, STANDS, provenance={"weights_sha256": {"best": "f0"}})

    assert "the same weights; one checkpoint is not two seeds" in refused(tmp_path / "records/t/a")


def test_the_same_seed_twice(tmp_path: Path, lay_record):
    lay_record(tmp_path, "a", 0, STANDS)
    (tmp_path / "records/t/a-s0").rename(tmp_path / "records/t/a-s7")
    lay_record(tmp_path, "a", 0, STANDS)

    assert "both are t/a with seed 0" in refused(tmp_path)
