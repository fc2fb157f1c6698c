"""From paths to verdicts, and every way in which they can be wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advbench.compare.read import read
from advbench.record import Accuracy, Scores, load, save
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


def test_a_rung_that_does_not_add_up_to_its_score_is_left_out(laid: Path):
    folder = laid / "records/t/a-s0"
    record = load(folder / "record.json")
    assert record.scores
    scores = record.scores.model_copy(update={"attacks": {"fgsm": 0.9, "pgd": 0.75}})
    beside = {name: (folder / name).read_bytes() for name in record.files}
    save(record.model_copy(update={"scores": scores}), folder, beside)

    assert list(read(folder)[0].first.rungs()) == ["pgd"]


def test_an_evaluation_that_was_not_climbed_to_its_end_has_no_robust_verdicts(laid: Path):
    folder = laid / "records/t/a-s0"
    record = load(folder / "record.json")
    assert record.scores
    beside = {name: (folder / name).read_bytes() for name in record.files}
    save(record.model_copy(update={"scores": record.scores.model_copy(update={"robust": None})}), folder, beside)
    result = read(folder)[0].first

    assert result.robust is None
    assert result.clean.all()
    save(record.model_copy(update={"scores": None}), folder, beside)
    assert "a record without scores: nothing to compare; run its job again" in refused(folder)


def test_groups_are_by_task_then_label_with_those_that_failed(tmp_path: Path, lay_record):
    for label, seed, task in (("b", 1, "t"), ("b", 0, "t"), ("a", 0, "u"), ("c", 0, "t")):
        failed = {"status": "failed", "error": "x"} if (label, seed) in (("b", 1), ("c", 0)) else {}
        lay_record(tmp_path, label, seed, np.roll(STANDS, seed), task=task, **failed)
    groups = read(tmp_path)

    assert [(group.name, len(group.results), len(group.failed)) for group in groups] == [
        *(("t/b (1 seeds)", 1, 1), ("t/c-s0", 0, 1), ("u/a-s0", 1, 0))
    ]


def test_of_a_study_there_is_nothing_to_compare(tmp_path: Path, lay_record):
    lay_record(tmp_path, "a", 0, STANDS, job={"study": {"name": "grow"}})
    assert "holds a study's records, which have no examples to compare" in refused(tmp_path)
    lay_record(tmp_path, "b", 0, STANDS)
    assert [group.label for group in read(tmp_path)] == ["b"]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [0, None, 2], "predicted": [None, 1, 2]}, "examples without label and predicted"),
        ({"index": ["a", "b", "c"]}, "not a whole table of examples"),
        ({"broken_by": [[1], [2], [3]]}, "not a whole table of examples"),
    ],
)
def test_a_table_with_holes_or_other_things_is_refused(laid: Path, columns, said):
    whole = {"index": [0, 1, 2], "label": [0, 1, 2], "predicted": [0, 1, 2], "broken_by": ["pgd", None, None]}
    file = io.BytesIO()
    pq.write_table(pa.table(whole | columns), file)

    assert said in refused(resaved(laid / "records/t/a-s0", file.getvalue()))


def test_a_table_without_examples_is_refused(laid: Path):
    folder = laid / "records/t/a-s0"
    none = Scores(clean=Accuracy(accuracy=0, low=0, high=1, n=0))
    table = pq.read_table(folder / "examples.parquet").slice(0, 0)
    file = io.BytesIO()
    pq.write_table(table, file)
    record = load(folder / "record.json").model_copy(update={"scores": none})
    save(record, folder, {"examples.parquet": file.getvalue()})

    assert "examples.parquet: no examples" in refused(folder)


@pytest.mark.parametrize("weights", [{}, None, "f0"])
def test_seeds_of_which_no_digest_is_known_may_be_anything(tmp_path: Path, lay_record, weights):
    for seed in (0, 1):
        lay_record(tmp_path, "a", seed, STANDS, provenance={"weights_sha256": weights})

    assert read(tmp_path)[0].seeds == [0, 1]


def test_a_folder_of_that_name_without_a_record_is_no_seed(laid: Path):
    (laid / "records/t/a-s9").mkdir()
    (laid / "records/t/b-s0").mkdir()

    assert read(laid / "records/t/a")[0].seeds == [0, 1, 2]
    assert "no seeds of that name" in refused(laid / "records/t/b")
