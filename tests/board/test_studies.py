"""Claims on the board: judged over seeds, from records alone, and nothing of them where there are none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as tensors

from advbench.board import build
from advbench.board.beside import key
from advbench.board.studies import interval, number, plain, required, studies
from advbench.findings import Claim, Findings, Plot
from advbench.record import MEASURES, Record, save


def lay(
    folder: Path, seed: int, found: float | None, *, lines: dict[str, list[float]] | None = None, **changes: Any
) -> Record:
    claim = Claim(
        name="ratio", statement="It <b>grows</b>.", source="derived here", required=2, sense="at least", found=found
    )
    said = Findings(about="Does it grow?", paper="A 2020", claims=(claim,), plot=Plot(x="width", y="loss", log="y"))
    values: dict[str, Any] = {
        "schema": 1,
        "id": f"id{seed}",
        "task": "growth",
        "defense": "grow",
        "label": "grow",
        "seed": seed,
        "status": "ok",
        "job": {"title": "Growth", "study": {"name": "grow"}},
        "findings": said,
    }
    beside = {MEASURES: tensors({f"grow/{k}": torch.tensor(v) for k, v in lines.items()})} if lines else {}
    return save(Record.model_validate(values | changes), folder / "records" / "growth" / f"grow-s{seed}", beside)


def test_a_claim_is_judged_over_its_seeds(tmp_path: Path):
    records = [lay(tmp_path, seed, found) for seed, found in enumerate([2.9, 3.0, 3.1])]

    (study,) = studies(records)
    (one,) = study.judged

    assert (one.verdict, one.found) == ("holds", pytest.approx(3.0))
    assert study.seeds == (0, 1, 2)
    assert plain(study)["claims"][0]["numbers"] == [2.9, 3.0, 3.1]


def test_what_was_required_is_said_as_it_was_written_down(tmp_path: Path):
    record = lay(tmp_path, 0, 3.0)
    (one,) = studies([record])[0].judged

    for value, said in ((1.001, "at least 1.001"), (2.0, "at least 2"), (1e-06, "at least 1e-06")):
        assert required(replace(one, claim=one.claim.model_copy(update={"required": value}))) == said


def test_numbers_of_another_claim_under_the_same_name_are_not_mixed_in(tmp_path: Path):
    records = [lay(tmp_path, seed, 3.0 + seed / 10) for seed in range(2)]
    other = lay(tmp_path, 2, 0.0)
    assert other.findings
    changed = other.findings.claims[0].model_copy(update={"required": 9.0})
    other = other.model_copy(update={"findings": other.findings.model_copy(update={"claims": (changed,)})})

    (study,) = studies([*records, other])

    assert len(study.judged[0].numbers) == 2


def test_a_failed_seed_is_told(tmp_path: Path):
    lay(tmp_path, 0, 3.0)
    lay(tmp_path, 1, None, status="failed", findings=None, error="Traceback\nValueError: no")
    build(tmp_path)

    board = json.loads((tmp_path / "board.json").read_text())
    assert board["studies"][0]["failed"] == [{"seed": 1, "error": "ValueError: no"}]
    assert "FAILED, seed 1" in (tmp_path / "README.md").read_text()


def test_curves_are_means_and_ranges_over_seeds(tmp_path: Path):
    for seed in range(2):
        lay(tmp_path, seed, 3.0, lines={"x": [1.0, 2.0], "small": [1.0 + seed, 10.0]})
    build(tmp_path)

    (study,) = json.loads((tmp_path / "board.json").read_text())["studies"]
    assert study["curves"] == {"x": [1, 2], "lines": {"small": [[1.5, 10], [1, 10], [2, 10]]}, "seeds": 2}


def test_lines_are_in_the_order_of_their_numbers(tmp_path: Path):
    names = ["8 units", "32 units", "128 units"]
    lay(tmp_path, 0, 3.0, lines={"x": [1.0], **{name: [1.0] for name in reversed(names)}})
    build(tmp_path)

    (study,) = json.loads((tmp_path / "board.json").read_text())["studies"]
    assert list(study["curves"]["lines"]) == names


def test_a_study_is_no_defense(tmp_path: Path):
    lay(tmp_path, 0, 3.0)
    build(tmp_path)

    assert json.loads((tmp_path / "board.json").read_text())["tasks"] == []
    assert len((tmp_path / "board.csv").read_text().splitlines()) == 1
    readme = (tmp_path / "README.md").read_text()
    assert "There are no records yet" not in readme
    assert "It &lt;b&gt;grows&lt;/b&gt;." in readme


def test_without_studies_nothing_is_said_of_them(tmp_path: Path, make: Any):
    save(make(), tmp_path / "records" / "t" / "d-s0")
    build(tmp_path)

    assert "studies" not in json.loads((tmp_path / "board.json").read_text())
    assert "Claims" not in (tmp_path / "README.md").read_text()


def test_a_study_says_all_that_is_known_of_it(tmp_path: Path):
    notes = {"grow": ("one core", "float64"), "more": ("one core",)}
    one = lay(tmp_path, 0, 3.00000123, measure_notes=notes)
    two = lay(tmp_path, 1, None, status="failed", findings=None, error="Traceback\nValueError: no")
    (study,) = studies([two, one])
    claim = {"name": "ratio", "statement": "It <b>grows</b>.", "source": "derived here", "required": 2}
    claim |= {"sense": "at least", "over": "mean"}
    found = {"found": 3, "low": None, "high": None, "verdict": "undecided", "numbers": [3]}

    assert plain(study) == {
        "task": "growth",
        "title": "Growth",
        "study": "grow",
        "about": "Does it grow?",
        "paper": "A 2020",
        "seeds": [0],
        "failed": [{"seed": 1, "error": "ValueError: no"}],
        "claims": [claim | found],
        "notes": ["one core", "float64"],
        "curves": None,
        "plot": Plot(x="width", y="loss", log="y").plain(),
    }
    (none,) = studies([two.model_copy(update={"job": {"study": {"name": "grow"}}})])
    said = plain(none)
    assert [said[key] for key in ("title", "about", "paper", "claims", "plot")] == ["growth", None, None, [], None]


def test_studies_stand_by_task_and_label_with_their_seeds_in_order(tmp_path: Path):
    records = [
        lay(tmp_path / f"{task}{label}", seed, 3.0, task=task, label=label)
        for seed, label, task in ((1, "b", "t"), (0, "b", "t"), (0, "a", "u"), (0, "a", "t"))
    ]

    assert [(one.task, one.label, one.seeds) for one in studies(records)] == [
        *(("t", "a", (0,)), ("t", "b", (0, 1)), ("u", "a", (0,)))
    ]


def curves(folder: Path, *seeds: dict[str, Any]) -> Any:
    records = [lay(folder, seed, 3.0, lines=lines) for seed, lines in enumerate(seeds)]
    folders = {key(record): folder / "records" / "growth" / f"grow-s{record.seed}" for record in records}
    return studies(records, folders)[0].curves


def test_seeds_of_another_x_and_lines_of_another_length_are_left_out(tmp_path: Path):
    whole = {"x": [1.0, 2.0], "a": [1 / 3, 1.0], "b": [1.0]}
    others = [{"x": [1.0, 3.0], "a": [5.0, 5.0]}, {"a": [5.0, 5.0]}, {"x": [1.0, 2.0], "b": [7.0, 8.0]}]

    assert curves(tmp_path, whole, *others) == {
        "x": [1, 2],
        "lines": {"a": [[0.3333, 1]] * 3, "b": [[7, 8]] * 3},
        "seeds": 2,
    }


@pytest.mark.parametrize(
    ("lines", "points"),
    [
        ({"x": [1 / 3] * 400, "a": [1.0] * 400}, 400),
        ({"x": [1.0] * 401, "a": [1.0] * 401}, None),
        ({"x": [1.0]}, None),
        ({"a": [1.0]}, None),
        ({"x": [[1.0]], "a": [[1.0]]}, None),
        ({"x": [], "a": []}, None),
    ],
)
def test_curves_are_shown_where_they_have_an_x_of_up_to_four_hundred_points(tmp_path: Path, lines, points):
    found = curves(tmp_path, lines)

    assert (found and found["x"]) == (points and [0.333333] * points)


def test_curves_that_cannot_be_read_are_passed_over(tmp_path: Path):
    lines = {"x": [1.0], "a": [2.0]}
    records = [lay(tmp_path, seed, 3.0, lines=lines if seed else None) for seed in range(3)]
    folders = {key(record): tmp_path / "records" / "growth" / f"grow-s{record.seed}" for record in records}
    (folders[key(records[1])] / MEASURES).write_bytes(b"changed")

    assert studies(records, folders)[0].curves == {"x": [1], "lines": {"a": [[2]] * 3}, "seeds": 1}
    assert studies(records)[0].curves is None
    assert studies(records[:2], folders)[0].curves is None


def test_what_was_found_is_said_at_three_digits(tmp_path: Path):
    (one,) = studies([lay(tmp_path, seed, found) for seed, found in enumerate([2.9, 3.0, 3.1])])[0].judged
    every = replace(one, claim=one.claim.model_copy(update={"over": "every seed"}), low=1 / 3, high=12345.0)

    assert [number(x) for x in (None, 1 / 3, 12345.0)] == ["–", "0.333", "1.23e+04"]
    assert (required(every), interval(every)) == ("at least 2, in every seed", "0.333 to 1.23e+04")
    assert interval(replace(one, low=None)) == "–"
