"""docs/neighbours.py says what records say, and docs/neighbours.md is what it says of the committed ones."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hand_made import lay


@pytest.fixture(scope="module")
def neighbours(repo: Path) -> dict[str, Any]:
    return runpy.run_path(str(repo / "docs" / "neighbours.py"))


@pytest.mark.slow
def test_the_committed_page_is_of_the_committed_records(repo: Path, neighbours: dict[str, Any]) -> None:
    assert (repo / "docs" / "neighbours.md").read_text("utf-8") == neighbours["page"]([str(repo / "leaderboard")])


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Of 200 examples fast-at holds 100, pgd-at 140, trades 139 to 141, and mart the very ones that pgd-at does not."""
    for seed in range(3):
        at = np.arange(200)
        lay(tmp_path, "fast-at", seed, at < 100 + seed)
        lay(tmp_path, "pgd-at", seed, at < 140 + seed)
        lay(tmp_path, "trades", seed, at < 139 + 2 * (seed % 2))
        lay(tmp_path, "mart", seed, at >= 140)
    return tmp_path


def test_an_ordering_is_found_reversed_or_not_told_apart(results: Path, neighbours: dict[str, Any]) -> None:
    lines = neighbours["orderings"](results, "t", {"fast-at", "pgd-at", "trades", "mart"})
    verdicts = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip(" |") for line in lines if " over " in line
    }

    assert verdicts == {
        "pgd-at over fast-at": "found",
        "trades over pgd-at": "not told apart",
        "mart over trades": "reversed",
    }
    assert lines[-1] == "Of 3 published orderings: 1 found, 1 not told apart, 1 reversed."


def test_costs_are_multiples_of_the_reference_s(results: Path, neighbours: dict[str, Any]) -> None:
    lines = neighbours["task"](neighbours["records"](str(results)), results, "t")
    [row] = [line for line in lines if line.startswith("| fast-at |")]

    # lay() gives every record 1,000 passes and 10 + seed seconds.
    assert row.startswith("| fast-at | 3 | 50.5 (50.0 to 51.0) | -20.0 (")
    assert "| 1.00x | 1.00x | 0 |" in row


def test_the_truth_is_bracketed_where_every_seed_was_asked(neighbours: dict[str, Any]) -> None:
    frame = pd.DataFrame({"label": ["a", "a", "b", "b", "c"]})
    assert neighbours["bracketed"](frame, ["b", "a"]) == []
    for name, values in {
        "certified_interval": [0.1, 0.2, 0.5, None, None],
        "certified": [0.3, 0.4, 0.6, None, None],
        "attacked": [0.5, 0.7, 0.8, None, None],
    }.items():
        frame[f"measure/certified/{name}"] = values

    assert neighbours["bracketed"](frame, ["b", "a", "c"])[3:] == [
        "| a | 15.0 (10.0 to 20.0) | 35.0 (30.0 to 40.0) | 60.0 (50.0 to 70.0) |"
    ]


def test_flags_are_counted_and_collapses_apart(neighbours: dict[str, Any]) -> None:
    rows = pd.DataFrame({"flags": ["catastrophic-overfitting, pgd-gap", "", "pgd-gap, catastrophic-overfitting, dead"]})

    assert neighbours["flags"](rows) == (2, "dead 1, pgd-gap 2")
    assert neighbours["flags"](pd.DataFrame({"flags": ["", ""]})) == (0, "")


def test_a_published_figure_stands_beside_ours_with_the_interval_over_seeds_and_examples(
    results: Path, neighbours: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    Figure, figures = neighbours["Figure"], neighbours["figures"]
    asked = [("t", "pgd-at", 64.5), ("t", "pgd-at", 76.5), ("t", "pgd-at", 63.5), ("t", "pgd-at", 77.5)]
    asked += [("other", "pgd-at", 70.0), ("t", "elle", 70.0)]
    made = tuple(Figure(task, label, robust, "PGD", "a paper", "all") for task, label, robust in asked)
    monkeypatch.setitem(figures.__globals__, "FIGURES", made)

    rows = [line.strip("| ").split(" | ") for line in figures(results, "t", {"pgd-at", "trades"})[3:]]

    # 140, 141 and 142 of 200: a binomial standard error of 3.2 points, which seeds so alike hardly widen.
    assert [(row[1], row[4]) for row in rows] == [
        ("64.50", "within"), ("76.50", "within"), ("63.50", "beyond"), ("77.50", "beyond")
    ]  # fmt: skip
    assert {row[3].split()[0] for row in rows} == {"70.5"}
    assert figures(results, "other", {"trades"}) == []


def test_two_seeds_have_no_interval_of_a_defense(results: Path, neighbours: dict[str, Any]) -> None:
    lay(results, "mart", 3, np.arange(200) < 100)
    for seed in range(2):
        lay(results, "n-fgsm", seed, np.arange(200) < 100)

    assert neighbours["own"](results / "records" / "t" / "mart") is not None
    assert neighbours["own"](results / "records" / "t" / "n-fgsm") is None
