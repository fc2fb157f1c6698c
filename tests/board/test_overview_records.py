"""A record as its own view has it: everything it says, in an order of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advbench.board import overview
from advbench.board.details import course, detail
from advbench.board.rows import Row
from advbench.record import Accuracy, Flag, Measure, Scores

FOLDER = Path("/home/someone/records/t/a-s0")


def test_a_record_says_all_that_it_has(make: Any):
    job = {"b": [{"d": 1, "c": 2}], "a": {10: "x", "9": (3, {"z": 1, "y": 2})}}
    more = {"job": job, "provenance": {"torch": "2", "host": "vm"}, "files": {"b": "2", "a": "1"}}
    notes = {"fosc": ("16 examples",), "a": ("none",)}
    score = Scores(clean=Accuracy(accuracy=0.5, low=0.25, high=0.75, n=4), attacks={"pgd": 0.25, "fgsm": 0.5})
    kept = {"last": score, "best": score}
    record = make("a").model_copy(update=more | {"measure_notes": notes, "scores": score, "checkpoints": kept})
    found = detail(Row(record, unlike=("threads 2, not 1",)), FOLDER)
    clean = {"accuracy": 0.5, "low": 0.25, "high": 0.75, "n": 4, "protocol": None}
    scores = {"clean": clean, "attacks": {"fgsm": 0.5, "pgd": 0.25}}

    assert found == {
        "id": "t-a-0",
        "defense": "a",
        "paper": None,
        "command": "advbench run t.toml --only t/a-s0",
        "task_file": "t.toml",
        "again": "advbench reproduce records/t/a-s0",
        "folder": "records/t/a-s0",
        "elsewhere": None,
        "unlike": ["threads 2, not 1"],
        "error": None,
        "scores": scores,
        "checkpoints": {"best": scores, "last": scores},
        "best": 3,
        "cost": record.cost.plain(),
        "remarks": {"a": ["none"], "fosc": ["16 examples"]},
        "job": {"a": {"10": "x", "9": [3, {"y": 2, "z": 1}]}, "b": [{"c": 2, "d": 1}]},
        "provenance": {"host": "vm", "torch": "2"},
        "files": {"a": "1", "b": "2"},
    }
    orders = (found["checkpoints"], found["remarks"], found["job"], found["job"]["a"], found["files"])
    assert [list(one) for one in orders] == [["best", "last"], ["a", "fosc"], ["a", "b"], ["10", "9"], ["a", "b"]]
    assert list(found["scores"]["attacks"]) == ["fgsm", "pgd"]


def test_a_failed_record_has_the_end_of_its_traceback(make: Any):
    long, none = (detail(Row(make("a", error=error)), FOLDER) for error in ("x" * 7_000 + "end", ""))

    assert (len(long["error"]), long["error"][-4:], long["scores"]) == (6_000, "xend", None)
    assert none["error"] == "no traceback was kept"


def test_a_model_from_elsewhere_is_not_reproduced(make: Any):
    record = make("external")
    record.job.pop("defense")
    found = detail(Row(record), FOLDER)

    assert (found["again"], found["elsewhere"]) == (None, "digits-cnn")


def test_measures_number_their_words_once_a_task(make: Any):
    def measure(value: float | None, unit: str = "nats") -> Measure:
        return Measure(value=value, unit=unit, meaning="m")

    flag = Flag(name="dead", message="one class", evidence={"epoch": 17})
    found = {"fosc": {"b": measure(None), "a": measure(1 / 3)}, "energy": {"c": measure(2, "J")}}
    words = {("J", "m"): 0}
    told = course(Row(make("a", flags=(flag,)).model_copy(update={"measures": found})), words)

    assert told == {
        "flags": [{"name": "dead", "message": "one class", "evidence": {"epoch": 17}}],
        "measures": {"energy": {"c": [2, 0]}, "fosc": {"a": [0.33333, 1], "b": [None, 1]}},
        "history": None,
    }
    assert (list(told["measures"]), list(told["measures"]["fosc"])) == (["energy", "fosc"], ["a", "b"])
    assert words == {("J", "m"): 0, ("nats", "m"): 1}


def test_what_was_measured_in_passing_stands_at_its_epoch(trained: Any):
    record = trained("a", [0.5, 1 / 3, 0.25], forward=7, backward=4)
    seen = [{"fosc": {"final": 2 / 3}}, None, {"fosc": {"final": None}, "energy": {"mean": 1.0}}]
    lines = [epoch.model_copy(update={"measures": one}) for epoch, one in zip(record.history, seen, strict=True)]
    found = course(Row(record.model_copy(update={"history": tuple(lines)})), {})["history"]

    assert (found["pgd"], found["passes"]) == ([0.5, 0.3333, 0.25], [11, 11, 11])
    assert (found["fosc final"], found["energy mean"]) == ([0.6667, None, None], [None, None, 1.0])
    assert list(found)[-2:] == ["energy mean", "fosc final"]
    assert overview.digits(1 / 3) == 0.333333
