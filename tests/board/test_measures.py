"""What collectors found, on the page and as data; and nothing of it where nobody collected."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import paged
import pytest

from advbench.board import build
from advbench.record import Measure, Record

Make = Callable[..., Record]
Lay = Callable[..., Path]


def measure(value: float | None, unit: str = "nats", meaning: str = "what it is, <b>median</b>") -> Measure:
    return Measure(value=value, unit=unit, meaning=meaning)


def collected(record: Record, notes: str = "16 examples", **values: float | None) -> Record:
    found = {name: measure(value) for name, value in values.items()}
    return record.model_copy(update={"measures": {"fosc": found}, "measure_notes": {"fosc": (notes,)}})


@pytest.fixture
def board(tmp_path: Path, lay: Lay, make: Make) -> Path:
    """Three seeds with measures, one of them not finite; a label without; a second task with one of another name."""
    build(
        lay(
            tmp_path,
            collected(make(seed=0), b_mean=None, a_mean=0.25),
            collected(make(seed=1), b_mean=2e6, a_mean=0.75),
            collected(make(seed=2), "<i>not</i> applicable", a_mean=0.5),
            make("none"),
            collected(make(task="u"), c_mean=0.1 + 0.2),
            make("plain", task="v"),
        )
    )
    return tmp_path


def test_the_csv_has_a_column_a_measure_in_full_precision(board: Path):
    rows = list(csv.DictReader((board / "board.csv").read_text("utf-8").splitlines()))
    names = [f"measure.fosc.{name}" for name in ("a_mean", "b_mean", "c_mean")]

    assert list(rows[0])[-3:] == names
    assert {(r["task"], r["label"], r["seed"]): tuple(r[name] for name in names) for r in rows} == {
        ("t", "pgd-at", "0"): ("0.25", "", ""),
        ("t", "pgd-at", "1"): ("0.75", "2000000.0", ""),
        ("t", "pgd-at", "2"): ("0.5", "", ""),
        ("t", "none", "0"): ("", "", ""),
        ("u", "pgd-at", "0"): ("", "", "0.30000000000000004"),
        ("v", "plain", "0"): ("", "", ""),
    }


def test_the_json_has_values_by_record_and_meanings_by_task(board: Path):
    tasks = json.loads((board / "board.json").read_text("utf-8"))["tasks"]
    [group] = [group for group in tasks[0]["groups"] if group["label"] == "pgd-at"]
    words = {"unit": "nats", "meaning": "what it is, <b>median</b>"}

    assert tasks[0]["measures"] == {"fosc": {"a_mean": words, "b_mean": words}}
    assert [record["measures"]["fosc"]["a_mean"] for record in group["records"]] == [0.25, 0.75, 0.5]
    assert group["records"][0]["measures"]["fosc"]["b_mean"] is None
    assert "measures" not in tasks[2]
    assert [list(one) for one in tasks[0]["groups"]] == [list(group)] * 2


def test_the_page_has_values_by_group_units_and_meanings(board: Path):
    page = (board / "index.html").read_text("utf-8")
    [one, two, none] = [paged.parts(page)[f"task-{t}"] for t in range(3)]
    words = {"collector": "fosc", "unit": "nats", "meaning": "what it is, <b>median</b>"}

    assert one["measured"] == ["pgd-at"]
    # By seed, and what is not finite is left out.
    assert one["measures"] == [
        {**words, "name": "a_mean", "values": [[0.25, 0.75, 0.5]]},
        {**words, "name": "b_mean", "values": [[2e6]]},
    ]
    assert [m["values"] for m in two["measures"]] == [[[0.3]]]
    assert (none["measured"], none["measures"]) == ([], [])
    record = paged.record(page, "0-1-2")
    assert record["remarks"] == {"fosc": ["<i>not</i> applicable"]}
    assert record["measures"] == {"fosc": {"a_mean": [0.5, 0]}}
    assert one["words"] == [["nats", "what it is, <b>median</b>"]]


def test_a_board_without_measures_says_nothing_of_them(tmp_path: Path, lay: Lay, records: list[Record]):
    home = lay(tmp_path, *records)
    build(home)

    for name in ("board.csv", "board.json", "README.md"):
        text = (home / name).read_text("utf-8")
        assert "measure." not in text
        assert '"measures"' not in text
        assert "Collected" not in text
