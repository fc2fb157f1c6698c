"""What `advbench validate` prints of what it finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from planned import items

from advbench import quote


def test_what_is_counted_of_a_file():
    lines = [*items(1.23456, 2), *items(9, label="e", skip="no", records=3), *items(4, label="f", records=3)]

    assert quote._sum(lines, 2) == {"jobs": 4, "skipped": 1, "seconds": 7.235, "wall_seconds": 4.0}
    assert quote._sum(items(1.23456), 1)["wall_seconds"] == 1.235
    assert quote._sum([], 2) == {"jobs": 0, "skipped": 0, "seconds": 0, "wall_seconds": 0}
    assert quote._kinds(lines) == [
        {"task": "t", "label": "d", "jobs": 2, "seconds": 1.235, "records": 0, "basis": "measured now", "skip": ""},
        {"task": "t", "label": "e", "jobs": 1, "seconds": 9.0, "records": 3, "basis": "skipped", "skip": "no"},
        {"task": "t", "label": "f", "jobs": 1, "seconds": 4.0, "records": 3, "basis": "from 3 records", "skip": ""},
    ]


@pytest.mark.parametrize(
    ("jobs", "skipped", "workers", "said"),
    [
        (1, 0, 1, "1 job, about 9 s with 1 worker"),
        (2, 1, 2, "2 jobs, 1 to be skipped, about 9 s with 2 workers"),
        (0, 0, 1, "0 jobs, about 9 s with 1 worker"),
    ],
)
def test_counts_are_said_in_words(jobs: int, skipped: int, workers: int, said: str):
    assert quote._words({"jobs": jobs, "skipped": skipped, "wall_seconds": 9.0}, workers) == said


def found(files: int) -> dict[str, Any]:
    lines = [*items(60, 60), *items(1, label="e", skip=f"not [red]here[/red] 17 {'x' * 90}")]
    one = {**quote._sum(lines, 2), "kinds": quote._kinds(lines)}
    paths = [f"tasks/{'y' * 70}{n}.toml" for n in range(files)]
    return {"workers": 2, **quote._sum(lines * files, 2), "files": [{"path": path, **one} for path in paths]}


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A function: what was found, as JSON? -> what is printed of it."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("FORCE_COLOR", raising=False)

    def show(told: dict[str, Any], *, as_json: bool = False) -> str:
        asked: list[Any] = []
        monkeypatch.setattr(quote, "quote", lambda *words: asked.append(words) or told)
        words = ([Path("t")], Path("r"), Path("d"), "cpu", 2)
        quote.validate(*words, as_json=as_json)
        assert asked == [words]
        return capsys.readouterr().out

    return show


def test_as_json_it_is_all_there_is(printed):
    assert printed(found(1), as_json=True) == json.dumps(found(1), indent=1) + "\n"


def test_a_table_to_the_letter(printed):
    told = found(1)
    lines = [line.rstrip() for line in printed(told).splitlines()]

    assert lines == [
        "┏━━━━━━┳━━━━━━━━━┳━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━━━━━━┓",
        "┃ task ┃ defense ┃ jobs ┃      each ┃ estimate     ┃",
        "┡━━━━━━╇━━━━━━━━━╇━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━━━━━━┩",
        "│ t    │ d       │    2 │ 1 min 0 s │ measured now │",
        "│ t    │ e       │    1 │           │ skipped      │",
        "└──────┴─────────┴──────┴───────────┴──────────────┘",
        f"t would be skipped: not [red]here[/red] 17 {'x' * 90}",
        f"tasks/{'y' * 70}0.toml: 3 jobs, 1 to be skipped, about 1 min 0 s with 2 workers",
    ]
    lines = [line.rstrip() for line in printed(found(2)).splitlines()]
    assert sum(line.startswith("t would be skipped") for line in lines) == 1, "a reason is told once"
    assert lines[-1] == "together: 6 jobs, 2 to be skipped, about 2 min 0 s with 2 workers"


@pytest.mark.parametrize(("most", "more"), [(2, []), (1, ["... and 1 lines more"])])
def test_no_more_lines_than_a_person_reads(monkeypatch, printed, most: int, more: list[str]):
    monkeypatch.setattr(quote, "LINES", most)
    lines = printed(found(1)).splitlines()

    assert sum(line.startswith("│") for line in lines) == most
    assert [line for line in lines if line.startswith("...")] == more


def test_a_long_name_is_folded_and_never_cut(printed):
    told = found(1)
    told["files"][0]["kinds"][0]["label"] = "z" * 100
    text = printed(told)
    assert (text.count("z"), "…" in text) == (100, False)
