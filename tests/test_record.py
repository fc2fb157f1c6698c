"""Records on disk: whole or absent, equal when read again, refused by name when they are of another age."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from advbench.files import write_json
from advbench.record import (
    SCHEMA,
    Accuracy,
    Cost,
    Epoch,
    Flag,
    Measure,
    Record,
    Scores,
    load,
    load_all,
    save,
    whole,
)
from advbench.spec import BadInput
from advbench.stable import VOLATILE, stable

BESIDE = {"examples.parquet": b"rows", "adversarial.safetensors": b"pixels", "measures.safetensors": b"arrays"}


LOOKED: dict[str, Any] = {"measures": {"fosc": {"fosc_mean": 0.5, "fosc_median": None}}, "collect_seconds": 1.25}
"""What an epoch's line has beside when something was collected."""


def record(**changes: Any) -> Record:
    scores = Scores(
        clean=Accuracy(accuracy=0.9, low=0.8, high=0.95, n=100),
        robust=Accuracy(accuracy=0.5, low=0.4, high=0.6, n=100, protocol="autoattack"),
        attacks={"fgsm": 0.6, "autoattack": 0.5},
        alone={"fgsm": 0.6},
        alone_n={"fgsm": 64},
        curve={"1/20": 0.7},
    )
    epoch = Epoch(
        epoch=1,
        loss=None,
        clean=0.9,
        fgsm=0.6,
        pgd=0.5,
        top_class=0.1,
        eps=0.15,
        lr=0.1,
        seconds=2.5,
        forward=10,
        backward=9,
        extra={"fosc": 0.25},
    )
    values: dict[str, Any] = {
        "id": "5f0c",
        "task": "digits-linf",
        "defense": "pgd-at",
        "label": "pgd-at",
        "seed": 0,
        "status": "ok",
        "job": {"threat": {"eps": "3/20"}, "nested": [1, 2.5, None, True], "collect": {"fosc": {}}},
        "scores": scores,
        "checkpoints": {"last": scores},
        "best_epoch": 1,
        "history": (epoch, epoch.model_copy(update={"epoch": 2, "seconds": 3.5, **LOOKED})),
        "cost": Cost(train_seconds=1.5, eval_seconds=2.5, forward=7, backward=5, peak_memory_bytes=9, joules=3.5),
        "measures": {"fosc": {"fosc_mean": Measure(value=0.25, unit="nats", meaning="a gap")}},
        "measure_notes": {"fosc": ("100 examples",)},
        "flags": (Flag(name="masking", message="black box beats white box", evidence={"epoch": 17}),),
        "provenance": {
            "torch": "2.15.0",
            "date": "2026-11-20",
            "host": "a",
            "git": "b",
            "threads": 1,
            "evaluation": {},
        },
    }
    return Record(**values | changes)


def test_write_read_equal(tmp_path: Path):
    saved = save(record(), tmp_path / "r", BESIDE)

    assert load(tmp_path / "r" / "record.json") == saved
    assert set(saved.files) == set(BESIDE)
    assert saved.model_copy(update={"files": {}, "sha256": None}) == record()
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [*sorted(BESIDE), "record.json"]


def test_the_file_says_schema_and_holds_numbers(tmp_path: Path):
    save(record(), tmp_path)

    raw = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert raw["schema"] == SCHEMA
    assert "schema_version" not in raw
    assert raw["scores"]["clean"]["accuracy"] == 0.9


@pytest.mark.parametrize("schema", [SCHEMA - 1, SCHEMA + 1, None, "1"])
def test_a_record_of_another_age_is_refused_by_name(tmp_path: Path, schema):
    path = tmp_path / "record.json"
    write_json(path, record().plain() | {"schema": schema})

    with pytest.raises(BadInput) as error:
        load(path)
    assert f"{path}: record schema {schema!r}, this advbench reads {SCHEMA}" in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"schema": 1, "job": ' + '{"a":' * 5000 + "1" + "}" * 5001, "record.json: "),
        ('{"schema": 1, "a": ' + "9" * 5000 + "}", "9999... is not a number that a record can hold"),
    ],
    ids=["deep", "deep inside", "huge"],
)
def test_hostile_json_is_one_line(tmp_path: Path, content, said):
    path = tmp_path / "record.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(BadInput) as error:
        load(path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    "number", ["NaN", "-Infinity", "1e999", "-1E+100", "1.5e0300", "1" + "0" * 200 + ".0", str(2**63), "-1" + "0" * 19]
)
@pytest.mark.parametrize("gap", [": ", ":", ":\n"])
def test_a_number_that_some_reader_cannot_hold_is_refused_wherever_it_stands(tmp_path: Path, number, gap):
    text = json.dumps(record(provenance={"loss": 1}, job={}).plain(), indent=1)
    assert '"loss": 1' in text
    path = tmp_path / "record.json"
    path.write_text(text.replace('"loss": 1', f'"loss"{gap}{number}'), encoding="utf-8")

    with pytest.raises(BadInput, match=r"record\.json: not a record: .* is not a number that a record can hold"):
        load(path)


def test_numbers_as_large_as_a_record_can_hold_are_read(tmp_path: Path):
    large = {"integer": 2**63 - 1, "real": 1e99, "small": 0.00012345678901234567, "least": 1e-300, "text": "1e999 NaN"}
    saved = save(record(provenance=large), tmp_path)

    assert load(tmp_path / "record.json") == saved


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '"text"', "\udcff"])
def test_what_is_no_record_is_refused(tmp_path: Path, content):
    path = tmp_path / "record.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")

    with pytest.raises(BadInput, match=r"record\.json: "):
        load(path)


def test_a_record_with_wrong_fields_is_told_all_of_them(tmp_path: Path):
    path = tmp_path / "record.json"
    write_json(path, record().plain() | {"sede": 1, "seed": "0"})

    with pytest.raises(BadInput) as error:
        load(path)
    assert sorted(error.value.lines) == [
        f"{path}: no field 'sede'; did you mean 'seed'?",
        f'{path}: seed: should be a valid integer, not "0"',
    ]


@pytest.mark.parametrize("name", list(BESIDE))
def test_a_flipped_byte_beside_the_record_is_found(tmp_path: Path, name):
    saved = save(record(), tmp_path, BESIDE)
    assert whole(saved, tmp_path)

    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    assert not whole(saved, tmp_path)
    path.unlink()
    assert not whole(saved, tmp_path)


def test_files_of_an_earlier_run_do_not_stay_beside_a_record_that_lacks_them(tmp_path: Path):
    save(record(), tmp_path, BESIDE)
    save(record(status="failed", scores=None, error="Traceback"), tmp_path)

    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_nan_is_refused_in_declared_and_in_free_fields(tmp_path: Path):
    with pytest.raises(ValueError, match="finite"):
        Accuracy(accuracy=float("nan"), low=0, high=1, n=1)
    with pytest.raises(ValueError, match="JSON compliant"):
        save(record(provenance={"loss": float("nan")}), tmp_path)
    assert not (tmp_path / "record.json").exists()


def test_records_are_read_in_the_order_of_their_paths(tmp_path: Path):
    for folder in ("b/x-s0", "a/y-s1", "a/y-s0"):
        save(record(label=folder), tmp_path / folder)

    assert [r.label for r in load_all(tmp_path)] == ["a/y-s0", "a/y-s1", "b/x-s0"]


def leaves(value: Any, path: str = "") -> set[str]:
    """Dotted paths of all leaves; the items of a list share one."""
    if isinstance(value, dict) and value:
        return {leaf for key, inner in value.items() for leaf in leaves(inner, f"{path}.{key}".lstrip("."))}
    if isinstance(value, list) and value:
        return {leaf for inner in value for leaf in leaves(inner, path)}
    return {path}


def test_stable_drops_the_volatile_fields_and_nothing_else():
    full = record()

    assert leaves(full.plain()) - leaves(stable(full)) == VOLATILE | {"sha256"}
    assert leaves(stable(full)) <= leaves(full.plain())
    assert full == record(), "the record itself is left alone"


def test_two_runs_of_one_job_are_equal_in_what_is_stable():
    again = {
        "train_seconds": 99.0,
        "eval_seconds": 98.0,
        "collect_seconds": 96.0,
        "peak_memory_bytes": 97,
        "joules": None,
    }
    slow = record(
        cost=record().cost.model_copy(update=again),
        provenance=record().provenance | {"host": "c", "date": "2027", "git": "d"},
        history=tuple(e.model_copy(update={"seconds": 9.0}) for e in record().history),
    )

    assert slow != record()
    assert stable(slow) == stable(record())
    assert stable(record(seed=1)) != stable(record())


def test_what_was_collected_later_is_not_the_job_s_and_what_it_asked_for_is(tmp_path: Path):
    def collected(**values: float | None) -> Record:
        found = {name: {"mean": Measure(value=value, unit="1", meaning="a mean")} for name, value in values.items()}
        return record(measures=found, measure_notes=dict.fromkeys(values, ("100 examples",)))

    asked = save(collected(fosc=0.25), tmp_path / "asked", BESIDE)
    later = save(collected(fosc=0.25, margins=3.0), tmp_path / "later", BESIDE | {"measures.safetensors": b"more"})

    assert stable(later) == stable(asked)
    assert stable(collected(fosc=0.5)) != stable(collected(fosc=0.25))
    assert stable(collected(fosc=None)) != stable(collected(fosc=0.25))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (None, "no traceback was kept"),
        ("  \n", "no traceback was kept"),
        ("Traceback\n  File x\nValueError: a\nmore of it", "ValueError: a"),
        ("KeyError: 1\nadvbench.train.Diverged: the loss is nan\n", "advbench.train.Diverged: the loss is nan"),
        ("killed by signal 9\n  by whom nobody knows ", "by whom nobody knows"),
    ],
)
def test_the_reason_of_a_failure_is_its_last_error_or_its_last_line(error: str | None, reason: str):
    assert record(error=error).reason == reason


def test_by_itself_nothing_has_cost_anything():
    assert set(Cost().plain().values()) == {0, None}
    assert Cost().joules is None
    assert record().of_study is False
    assert record(job={"study": {}}).of_study is True


def test_what_was_not_asked_for_is_not_spoken_of():
    plain = record().plain()
    assert "findings" not in plain
    assert ("collect_seconds" in plain["history"][0], "measures" in plain["history"][0]) == (False, False)
    assert plain["history"][0]["loss"] is None
    assert plain["history"][1]["collect_seconds"] == 1.25
    assert plain["error"] is None


def test_the_records_of_one_task_are_read_alone(tmp_path: Path):
    for folder in ("b/x-s0", "a/y-s1", "a/y-s0"):
        save(record(label=folder), tmp_path / folder)

    assert [r.label for r in load_all(tmp_path, "a")] == ["a/y-s0", "a/y-s1"]
