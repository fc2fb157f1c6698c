"""A rerun beside its record: what is called equal, consistent or neither, and what a person is told of it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from advbench import agenda, machine, reproduce
from advbench.plan import Item, Job, record_folder, run_folder
from advbench.record import Accuracy, Record, Scores
from advbench.reproduce import Difference, Outcome, compare, tell
from advbench.spec import BadInput

BUILD = {"machine": "x", "device": "cpu: a", "torch": "2", "pyautoattack": "0", "threads": 1, "deterministic": True}


def accuracy(value: float, low: float, high: float) -> Accuracy:
    return Accuracy(accuracy=value, low=low, high=high, n=100)


def record(robust: Accuracy | None = None, clean: Accuracy | None = None, build: Any = None, **more: Any) -> Record:
    scores = Scores(clean=clean or accuracy(0.9, 0.8, 1.0), robust=robust or accuracy(0.5, 0.4, 0.6))
    values: dict[str, Any] = {"id": "1", "task": "t", "defense": "d", "label": "a", "seed": 0, "status": "ok"}
    values |= {"job": {}, "scores": scores, "provenance": BUILD | (build or {})}
    return Record(**values | more)


ELSEWHERE = {"torch": "3"}


@pytest.mark.parametrize(
    ("low", "high", "meets"),
    [(0.6, 0.8, True), (0.61, 0.8, False), (0.2, 0.4, True), (0.2, 0.39, False), (0.45, 0.55, True), (0.1, 0.9, True)],
)
@pytest.mark.parametrize("name", ["robust", "clean"])
def test_elsewhere_intervals_of_both_accuracies_have_to_meet(name: str, low: float, high: float, meets: bool):
    one, other = (record(**{name: a}) for a in (accuracy(0.5, 0.4, 0.6), accuracy(0.5, low, high)))
    other = other.model_copy(update={"provenance": BUILD | ELSEWHERE})

    for pair in ((one, other), (other, one)):
        assert compare(*pair).verdict == ("CONSISTENT" if meets else "INCONSISTENT")
        assert compare(*pair).good is meets


def test_what_only_one_of_them_has_is_not_consistent():
    some = record(build=ELSEWHERE)
    assert some.scores
    without = some.model_copy(update={"scores": some.scores.model_copy(update={"robust": None})})

    assert compare(record(), without).verdict == "INCONSISTENT"
    none = [record(build=build).model_copy(update={"scores": None}) for build in ({}, ELSEWHERE)]
    assert compare(*none).verdict == "CONSISTENT"


def test_every_field_that_came_out_otherwise_is_named():
    one = record(provenance=BUILD | {"passes": {"a": [1, {"b": 2}], "c": [1], "only": 3}})
    other = record(provenance=BUILD | {"passes": {"a": [1, {"b": 4}], "c": [1, 2], "more": 5}})

    found = compare(one, other)
    assert (found.verdict, found.good, found.why_not_promised) == ("DIFFERENT", False, ())
    place = "provenance.passes"
    assert list(found.differences) == [
        Difference(f"{place}.a[1].b", 2, 4),
        Difference(f"{place}.c", [1], [1, 2]),
        Difference(f"{place}.only", 3, None),
        Difference(f"{place}.more", None, 5),
    ]
    assert compare(one, one) == Outcome("EQUAL", (), ())
    assert compare(one, one).good


@pytest.mark.parametrize(("there", "here"), [(True, False), (False, True), (False, False)])
def test_equality_is_promised_where_both_were_deterministic(there: bool, here: bool):
    found = compare(record(build={"deterministic": there}), record(build={"deterministic": here}))
    assert found.why_not_promised == ("accelerators sum in any order",)
    assert found.verdict == "CONSISTENT"


def test_a_rerun_that_failed_says_why():
    found = compare(record(), record(status="failed", scores=None, error="Traceback\nValueError: no"))
    assert found == Outcome("FAILED", (), (Difference("error", None, "ValueError: no"),))
    assert not found.good


def told(outcome: Outcome, *records: Record) -> list[str]:
    console = Console(file=io.StringIO(), width=40, highlight=False, markup=False, emoji=False)
    tell(console, outcome, *(records or (record(), record())))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("count", "more"), [(10, []), (11, ["... and 1 fields more"]), (13, ["... and 3 fields more"])]
)
def test_ten_differences_are_told_and_how_many_more_there_are(count: int, more: list[str]):
    found = tuple(Difference(f"field{n}", "x" * 40, n) for n in range(count))
    lines = [f"field{n}: '{'x' * 40}' there, {n} here" for n in range(10)]
    assert told(Outcome("DIFFERENT", (), found)) == [*lines, *more, "DIFFERENT"]


def test_where_equality_is_not_promised_accuracies_are_told_side_by_side():
    why = ("torch 2 there, 3 here, and something long",)
    some = record(accuracy(0.57, 0.47, 0.67))
    console = Console(file=io.StringIO(), width=200, highlight=False)
    tell(console, Outcome("CONSISTENT", why, ()), record(), some)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines() == [
        f"equality is not promised: {why[0]}",
        "clean: 90.0% (80.0% to 100.0%) there, 90.0% (80.0% to 100.0%) here: +0.0 points",
        "robust: 50.0% (40.0% to 60.0%) there, 57.0% (47.0% to 67.0%) here: +7.0 points",
        "CONSISTENT",
    ]
    assert told(Outcome("CONSISTENT", why, ()))[0] == f"equality is not promised: {why[0]}", "in one line"


@pytest.fixture
def item(make_job, tmp_path: Path) -> Item:
    return Item(task="t", label="a", seed=0, base=tmp_path, job=make_job())


@pytest.mark.parametrize(
    ("device", "made_on", "here", "processes", "chosen"),
    [
        ("auto", "cpu: a", ["cuda:0"], 1, ["cpu"]),
        ("auto", "cpu: a", [], 3, ["cpu"] * 3),
        ("cpu", "Card", ["cuda:0"], 2, ["cpu"] * 2),
        ("auto", "Card", ["cuda:0", "cuda:1"], 1, ["cuda:1"]),
        ("auto", "Gone", ["cuda:0", "cuda:1"], 2, ["cuda:0", "cuda:1"]),
        ("auto", "Gone", [], 1, ["cpu"]),
        ("auto", "", ["cuda:0"], 1, ["cuda:0"]),
    ],
)
def test_a_rerun_runs_where_its_record_was_made_if_it_can(monkeypatch, item, device, made_on, here, processes, chosen):
    monkeypatch.setattr(machine, "accelerators", lambda: here)
    monkeypatch.setattr(machine, "device_name", lambda one: "Card" if one == "cuda:1" else "Chip")
    monkeypatch.setattr(agenda, "devices", lambda *words: ["cpu"])
    asked = item.model_copy(update={"processes": processes})
    old = record(build={"device": made_on})

    assert reproduce._devices(device, old, asked) == chosen
    needy = asked.model_copy(update={"job": asked.job.model_copy(update={"accelerator": True})})
    if chosen[0] == "cpu":
        with pytest.raises(BadInput, match="t/a-s0: needs an accelerator, and there is none"):
            reproduce._devices(device, old, needy)
    else:
        assert reproduce._devices(device, old, needy) == chosen


def test_a_rerun_goes_where_nothing_of_it_lies(tmp_path: Path, item: Item):
    made = reproduce._place(None, item)
    assert made.name.startswith("advbench-")
    made.rmdir()
    assert reproduce._place(tmp_path, item) == tmp_path
    for folder in (record_folder(tmp_path, item.path), run_folder(tmp_path, item.path)):
        folder.mkdir(parents=True)
        with pytest.raises(BadInput, match="holds t/a-s0 already; a rerun needs a folder without it"):
            reproduce._place(tmp_path, item)
        folder.rmdir()


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("robust", [0.5, 0.51])
def test_the_answer_is_printed_and_is_the_exit_code(monkeypatch, capsys, tmp_path, make_job, as_json, robust: float):
    """The job is not run: its record lies there already when it would have ended."""
    old, new = record(), record(accuracy(robust, 0.4, 0.6))
    item = Item(task="t", label="a", seed=0, base=tmp_path, job=make_job(), seconds=7)
    ran: list[Any] = []
    monkeypatch.setattr(reproduce, "_record", lambda path: old)
    monkeypatch.setattr(reproduce, "_item", lambda *words: item)
    monkeypatch.setattr(reproduce, "_devices", lambda *words: ["cpu"])
    monkeypatch.setattr(reproduce.local, "run", lambda *words: ran.append(words[:-1]))
    monkeypatch.setattr(reproduce, "load", lambda path: new)
    monkeypatch.setenv("COLUMNS", "40")

    code = reproduce.reproduce(
        Path("old"), tmp_path, tmp_path / "again", Path("data"), "cpu", as_json=as_json, minutes=2.5, memory_gib=3.5
    )
    limited = item.model_copy(update={"minutes": 2.5, "memory_gib": 3.5})
    assert ran == [([limited], tmp_path / "again", Path("data"), ["cpu"])]
    assert code == (0 if robust == 0.5 else 1)
    done = capsys.readouterr()
    where = str(tmp_path / "again" / "records" / "t" / "a-s0")
    verdict = "EQUAL" if robust == 0.5 else "DIFFERENT"
    begun = f"t/a-s0 again, into {tmp_path / 'again'}"
    if not as_json:
        lines = done.out.splitlines()
        assert (lines[0], lines[-2:], done.err) == (begun, [verdict, f"rerun: {where}"], "")
        return
    found = json.loads(done.out)
    assert done.out == json.dumps(found, indent=1) + "\n"
    assert done.err.splitlines()[0] == begun
    assert (found["record"], found["rerun"], found["verdict"]) == ("old", where, verdict)
    assert found["scores"]["rerun"]["robust"]["accuracy"] == robust
    assert [one["field"] for one in found["differences"]] == ([] if code == 0 else ["scores.robust.accuracy"])


def test_the_code_of_a_defense_s_base_is_looked_at_too(tmp_path: Path, make_job):
    file = tmp_path / "mine.py"
    file.write_text("", "utf-8")
    base = {"name": "base", "file": "mine.py", "sha256": "0" * 64}
    job: Job = make_job(defense={"base": base})
    [(_, mine, _), found] = reproduce._code(job, tmp_path)
    assert mine.name == "standard.py"
    assert found == ("defense", file, "0" * 64)
