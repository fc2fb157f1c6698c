"""Parquet: pandas reads what the records say, typed; memory does not grow with the examples."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advbench import interop
from advbench.interop import tables
from advbench.record import Accuracy, Flag, Measure, load_all
from advbench.spec import BadInput

Lay = Callable[..., Path]


def test_a_row_has_what_the_record_has(tmp_path: Path, lay: Lay):
    scores = {"alone": {"fgsm": 0.6}, "alone_n": {"fgsm": 64}, "curve": {"4/255": 0.7}}
    scores |= {"corruptions": {"fog": {"3": 0.4}}}
    flags = (Flag(name="b", message=""), Flag(name="a", message=""), Flag(name="a", message="again"))
    values = {"mean": 0.25, "none": None}
    measures = {"fosc": {name: Measure(value=value, unit="", meaning="") for name, value in values.items()}}
    lay(tmp_path, seed=0, scores=scores, flags=flags, measures=measures)
    lay(tmp_path, seed=1)
    lay(tmp_path, seed=2, error="Traceback\nRuntimeError: no memory")
    lines = interop.export("parquet", tmp_path, tmp_path / "out")

    frame = pd.read_parquet(tmp_path / "out" / "records.parquet").set_index("record")
    first, second, failed = (frame.loc[f"cifar10-linf/pgd-at-s{seed}"] for seed in (0, 1, 2))
    assert lines[0] == f"{tmp_path / 'out' / 'records.parquet'}: 3 records"
    assert (first["clean"], first["robust"], first["robust_n"]) == (0.8357, 0.5024, 10_000)
    assert (first["robust_low"], first["protocol"], first["eps"]) == (0.5024 - 0.01, "autoattack", "8/255")
    assert (first["after.autoattack"], first["alone.fgsm"], first["alone_n.fgsm"]) == (0.5024, 0.6, 64)
    assert (first["curve.4/255"], first["corruption.fog.3"], first["measure.fosc.mean"]) == (0.7, 0.4, 0.25)
    assert (first["train_seconds"], first["forward"], list(first["flags"])) == (20, 7, ["a", "b"])
    assert pd.isna(first["measure.fosc.none"])
    assert pd.isna(second["alone.fgsm"])
    assert list(second["flags"]) == []
    assert (failed["status"], failed["error"]) == ("failed", "RuntimeError: no memory")
    assert pd.isna(failed["robust"])


def test_types_do_not_depend_on_what_is_missing(tmp_path: Path, lay: Lay):
    lay(tmp_path / "failed", error="RuntimeError: x")
    lay(tmp_path / "whole")
    for name in ("failed", "whole"):
        interop.export("parquet", tmp_path / name, tmp_path / name / "out")

    failed, whole = (pq.read_schema(tmp_path / name / "out" / "records.parquet") for name in ("failed", "whole"))
    assert failed.names == list(tables.FIXED)
    assert {name: whole.field(name).type for name in failed.names} == tables.FIXED
    assert {failed.field(name).type for name in ("clean_n", "best_epoch")} == {pa.int64()}


def test_examples_are_the_records_own_and_join_by_record(tmp_path: Path, lay: Lay):
    for seed in (0, 1):
        lay(tmp_path, seed=seed)
    interop.export("parquet", tmp_path, tmp_path / "out")

    mine = pd.read_parquet(tmp_path / "out" / "examples.parquet")
    for seed in (0, 1):
        name = f"cifar10-linf/pgd-at-s{seed}"
        part = mine.query("record == @name").drop(columns=["record", "id", "refused"]).reset_index(drop=True)
        own = pd.read_parquet(tmp_path / "records" / name / "examples.parquet")
        pd.testing.assert_frame_equal(part, own)
    assert set(mine["refused"]) == {None}
    assert pq.read_schema(tmp_path / "out" / "examples.parquet").names == list(tables.EXAMPLES)


def test_a_table_that_is_not_the_record_s_is_left_out_and_counted(tmp_path: Path, lay: Lay):
    lay(tmp_path, seed=0)
    (lay(tmp_path, seed=1) / "examples.parquet").unlink()
    (lay(tmp_path, seed=2) / "examples.parquet").write_bytes(b"PAR1 of another")
    lay(tmp_path, seed=3, beside={"examples.parquet": b"no parquet, with its digest in the record"})

    lines = interop.export("parquet", tmp_path, tmp_path / "out")

    assert lines[2] == "without examples: 3 of 4 records, whose files are absent or not theirs"
    assert set(pd.read_parquet(tmp_path / "out" / "examples.parquet")["record"]) == {"cifar10-linf/pgd-at-s0"}


def test_two_tables_of_the_committed_board_agree(repo: Path, tmp_path: Path):
    interop.export("parquet", repo / "leaderboard", tmp_path)

    records = pd.read_parquet(tmp_path / "records.parquet").set_index("record")["robust"].to_dict()
    mine = pd.read_parquet(tmp_path / "examples.parquet", columns=["record", "broken_by"])
    stands = {name: part["broken_by"].isna().mean() for name, part in mine.groupby("record")}
    assert len(stands) == sum(not record.of_study for record in load_all(repo / "leaderboard" / "records"))
    assert stands == pytest.approx(records, rel=1e-12)


def test_memory_does_not_grow_with_the_examples(tmp_path: Path, lay: Lay):
    def peak(records: int) -> int:
        results = tmp_path / str(records)
        table = pq.read_table(pa.BufferReader(lay(results).joinpath("examples.parquet").read_bytes()))
        many = io.BytesIO()
        pq.write_table(pa.concat_tables([table] * 10_000), many)
        for seed in range(records):
            lay(results, seed=seed, beside={"examples.parquet": many.getvalue()})
        before = pa.default_memory_pool()
        pool = pa.proxy_memory_pool(before)
        pa.set_memory_pool(pool)
        try:
            interop.export("parquet", results, results / "out")
        finally:
            pa.set_memory_pool(before)
        return pool.max_memory()

    assert peak(40) < 2 * peak(5)


def test_a_row_is_whole_and_typed(tmp_path: Path, lay: Lay):
    rejected = Accuracy(accuracy=0.125, low=0.1, high=0.15, n=10_000)
    scores = {"alone": {"fgsm": 0.6}, "alone_n": {"fgsm": 64}, "rejected": rejected, "distance": 0.5}
    interop.export("parquet", lay(tmp_path, scores=scores, job={"threat": {"eps": None}}), tmp_path / "a" / "b")

    found = pq.read_table(tmp_path / "a" / "b" / "records.parquet")
    [row] = found.to_pylist()
    names = {"record": "cifar10-linf/pgd-at-s0", "task": "cifar10-linf", "label": "pgd-at", "defense": "pgd-at"}
    assert row == {
        **names,
        "seed": 0,
        "status": "ok",
        "id": "pgd-at-0",
        "data": "cifar10",
        "model": "preact-resnet18",
        "norm": "Linf",
        "eps": None,
        "protocol": "autoattack",
        "rejected": 0.125,
        "distance": 0.5,
        "best_epoch": 1,
        "clean": 0.8357,
        "clean_low": 0.8357 - 0.01,
        "clean_high": 0.8357 + 0.01,
        "clean_n": 10_000,
        "robust": 0.5024,
        "robust_low": 0.5024 - 0.01,
        "robust_high": 0.5024 + 0.01,
        "robust_n": 10_000,
        "train_seconds": 20,
        "eval_seconds": 0,
        "collect_seconds": 0,
        "train_forward": 1000,
        "train_backward": 1000,
        "forward": 7,
        "backward": 5,
        "peak_memory_bytes": 0,
        "joules": None,
        "flags": [],
        "error": None,
        "after.apgd-ce": 0.5024,
        "after.autoattack": 0.5024,
        "alone.fgsm": 0.6,
        "alone_n.fgsm": 64,
    }
    types = {field.name: field.type for field in found.schema}
    real = {"train_seconds", "eval_seconds", "collect_seconds", "joules", "rejected", "distance", "alone.fgsm"}
    whole = {"seed", "clean_n", "best_epoch", "train_forward", "forward", "peak_memory_bytes", "alone_n.fgsm"}
    assert {types[name] for name in real} == {pa.float64()}
    assert {types[name] for name in whole} == {pa.int64()}


def test_the_lines_count_and_a_second_export_takes_the_place_of_the_first(tmp_path: Path, lay: Lay):
    lay(tmp_path, seed=0)
    lay(tmp_path, seed=1)
    interop.export("parquet", tmp_path, tmp_path / "out")
    lines = interop.export("parquet", tmp_path, tmp_path / "out")

    assert lines == [
        f"{tmp_path / 'out' / 'records.parquet'}: 2 records",
        f"{tmp_path / 'out' / 'examples.parquet'}: 8 examples",
    ]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["examples.parquet", "records.parquet"]


def test_what_fails_half_way_leaves_nothing(tmp_path: Path, lay: Lay, monkeypatch: pytest.MonkeyPatch):
    folder = lay(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "_records", full)
    with pytest.raises((OSError, BadInput)):
        interop.export("parquet", folder, tmp_path / "out")
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
