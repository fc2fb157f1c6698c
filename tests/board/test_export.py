"""The board as data: every number as its record has it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from advbench.board import export
from advbench.board.support import Standing
from advbench.board.table import sections
from advbench.record import Flag, Measure, Record

Trained = Callable[..., Record]
DEAD = Flag(name="dead", message="The model answers with one class.", evidence={"top_class": 1.0})


def test_csv_gives_every_number_back(make: Any) -> None:
    records = [
        make(seed=s, robust=r, curve={"1/20": 1 / 3}, flags=(DEAD,)) for s, r in enumerate((1 / 3, 2 / 7, 0.1 + 0.2))
    ]
    records.append(make("broken, badly", error='ValueError: "x",\ny'))
    board = sections(records)
    lines = {(line["label"], line["seed"]): line for line in csv.DictReader(io.StringIO(export.flat(board)))}
    assert len(lines) == 4
    for record in records[:3]:
        line = lines[record.label, str(record.seed)]
        assert float(line["robust"]) == record.scores.robust.accuracy
        assert float(line["robust_low"]) == record.scores.robust.low
        assert float(line["curve.1/20"]) == 1 / 3
        assert float(line["attacks.pgd"]) == 0.6
        assert int(line["train_passes"]) == 5_100_000
        assert line["flags"] == "dead"
        assert line["eps"] == "3/20"
    broken = lines["broken, badly", "0"]
    assert (broken["status"], broken["robust"], broken["attacks.pgd"]) == ("failed", "", "")


@pytest.fixture
def ranked(make: Any) -> Any:
    """A section of one ranked record with all that a record can say, and a bare one that failed."""
    words = {"deviations": {"lr": 0.05, "epochs": 8}, "training": {"epochs": 8}}
    scores: dict[str, Any] = {"curve": {"1/10": 0.25}, "alone": {"square": 0.625}, "attacks": {"fgsm": 0.75}}
    record = make("é", 3, 0.5, flags=(Flag(name="odd", message=""), DEAD), job=words, **scores)
    measures = {c: {n: Measure(value=v, unit="1", meaning="m")} for c, n, v in (("d", "y", None), ("c", "x", 2.5))}
    record = record.model_copy(update={"measures": measures})
    (section,) = sections([record, make("bare", error="KeyError: 'data'").model_copy(update={"job": {}})])
    groups = (replace(section.groups[0], rows=(replace(section.groups[0].rows[0], unlike=("a 1, not 2", "b")),)),)
    standing = Standing(ranks={"é": (1, 2)}, intervals={"é": (0.4, 0.6)}, claim="checkpoints")
    return replace(section, groups=groups + section.groups[1:], standing=standing)


def test_a_line_has_all_that_the_record_has(ranked: Any) -> None:
    text = export.flat([ranked])
    line, bare = csv.DictReader(io.StringIO(text))

    assert (text.count("\n"), "\r" in text) == (3, False)
    assert ",".join(line) == (
        "task,label,defense,seed,status,id,data,model,norm,eps,epochs,protocol,n,clean,clean_low,clean_high,robust,"
        "robust_low,robust_high,best_epoch,train_seconds,eval_seconds,train_passes,forward,backward,peak_memory_bytes,"
        "joules,rank_low,rank_high,flags,deviations,unlike,"
        "attacks.fgsm,alone.square,curve.1/10,measure.c.x,measure.d.y"
    )
    assert list(line.values()) == [
        *("t", "é", "é", "3", "ok", "t-é-3", "digits", "digits-cnn", "Linf", "3/20", "8", "autoattack", "360"),
        *("0.9", "0.85", "0.9500000000000001", "0.5", "0.45", "0.55", "3"),
        *("13.0", "5.0", "5100000", "0", "0", "0", "", "1", "2", "dead;odd"),
        *('{"epochs": 8, "lr": 0.05}', "a 1, not 2; b", "0.75", "0.625", "0.25", "2.5", ""),
    ]
    assert {key: value for key, value in bare.items() if value and key != "unlike"} == {
        "task": "t",
        "label": "bare",
        "defense": "bare",
        "seed": "0",
        "status": "failed",
        "id": "t-bare-0",
        "train_seconds": "10.0",
        "eval_seconds": "5.0",
        "train_passes": "5100000",
        "forward": "0",
        "backward": "0",
        "peak_memory_bytes": "0",
        "deviations": "{}",
    }


def test_the_json_has_all_that_a_group_has(ranked: Any) -> None:
    text = export.nested([ranked])
    told = json.loads(text)
    (task,) = told["tasks"]
    group, bare = task["groups"]

    assert text == json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    assert list(told) == ["schema", "tasks"]
    assert told["schema"] == 1
    assert {key: value for key, value in task.items() if key != "groups"} == {
        "task": "t",
        "title": "Digits under Linf 0.15",
        "setting": "digits · Linf 3/20 · digits-cnn · 8 epochs",
        "protocol": "autoattack on 360 test examples",
        "ranks": "checkpoints",
        "budgets": [],
        "measures": {"c": {"x": {"unit": "1", "meaning": "m"}}, "d": {"y": {"unit": "1", "meaning": "m"}}},
    }
    assert group == {
        "label": "é",
        "defense": "é",
        "seeds": 1,
        "scored": 1,
        "clean": 0.9,
        "robust": 0.5,
        "lowest": 0.5,
        "highest": 0.5,
        "pgd": None,
        "train_seconds": 13,
        "train_passes": 5_100_000,
        "flags": {"dead": 1, "odd": 1},
        "notes": [
            *("1 of 1 dead", "1 of 1 odd", "trained differently: epochs 8, lr 0.05"),
            "1 of 1 under other settings: a 1, not 2; b",
        ],
        "records": [
            {
                "seed": 3,
                "id": "t-é-3",
                "status": "ok",
                "clean": 0.9,
                "robust": 0.5,
                "flags": ["dead", "odd"],
                "unlike": ["a 1, not 2", "b"],
                "error": None,
                "measures": {"c": {"x": 2.5}, "d": {"y": None}},
            }
        ],
        "rank": [1, 2],
        "interval": [0.4, 0.6],
    }
    assert list(group["records"][0]["measures"]) == ["c", "d"]
    assert (bare["rank"], bare["interval"], bare["scored"], bare["robust"]) == (None, None, 0, None)
    assert bare["records"][0] | {"id": "", "unlike": []} == {
        "seed": 0,
        "id": "",
        "status": "failed",
        "clean": None,
        "robust": None,
        "flags": [],
        "unlike": [],
        "error": "KeyError: 'data'",
    }


def test_a_number_that_json_does_not_have_is_refused(make: Any) -> None:
    section = replace(sections([make()])[0], standing=Standing(intervals={"pgd-at": (float("nan"), 1)}))

    with pytest.raises(ValueError, match="JSON"):
        export.nested([section])


def test_json_holds_the_same_numbers(make: Any) -> None:
    board = json.loads(export.nested(sections([make(seed=0, robust=1 / 3), make(seed=1, flags=(DEAD,))])))
    (task,) = board["tasks"]
    (group,) = task["groups"]
    assert group["robust"] == pytest.approx((1 / 3 + 0.5) / 2)
    assert group["records"][0]["robust"] == 1 / 3
    assert group["flags"] == {"dead": 1}


def test_a_pretrained_start_says_what_it_saw_and_elsewhere_nothing_changes(make: Any) -> None:
    model = {"name": "resnet18", "pretrained": "w.safetensors", "extra_data": "ImageNet-1k"}
    plain, board = sections([make()]), sections([make("big", job={"model": model}), make()])

    assert "extra_data" not in export.flat(plain) + export.nested(plain)
    lines = {line["label"]: line["extra_data"] for line in csv.DictReader(io.StringIO(export.flat(board)))}
    assert lines.pop("big") == "ImageNet-1k"
    assert set(lines.values()) == {""}
    groups = {group["label"]: group for group in json.loads(export.nested(board))["tasks"][0]["groups"]}
    assert groups["big"]["records"][0]["extra_data"] == "ImageNet-1k"


def test_json_holds_the_budgets(trained: Trained) -> None:
    records = [trained("a", [0.4, 0.5], 7), trained("b", [0.3])]
    (task,) = json.loads(export.nested(sections(records)))["tasks"]
    assert task["budgets"][1] == {
        "kind": "passes",
        "amount": 20,
        "groups": [
            {"label": "a", "rank": 1, "pgd": 0.4, "records": [{"seed": 7, "pgd": 0.4, "epochs": 1}]},
            {"label": "b", "rank": 2, "pgd": 0.3, "records": [{"seed": 0, "pgd": 0.3, "epochs": 1}]},
        ],
    }
