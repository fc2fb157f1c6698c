"""docs/trends.py counts what records say, and docs/trends.md is what it says of the committed ones."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest


@pytest.fixture(scope="module")
def trends(repo: Path) -> dict[str, Any]:
    return runpy.run_path(str(repo / "docs" / "trends.py"))


def row(defense: str, seed: int, eps: Any = "1/10", **values: Any) -> dict[str, Any]:
    return {"label": defense, "defense": defense, "seed": seed, "eps": eps, **values}


def test_the_committed_page_is_of_the_committed_records(repo: Path, trends: dict[str, Any]) -> None:
    assert (repo / "docs" / "trends.md").read_text("utf-8") == trends["page"](
        str(repo / "leaderboard"), str(repo / "studies" / "logistic")
    )


def test_a_trend_is_of_the_means_over_seeds_and_the_rank_of_all_models(trends: dict[str, Any]) -> None:
    at = {"1/10": (1.0, 3.0), "1/5": (2.0, 4.0), "1/2": (2.5, 2.5), "1": (9.0, 9.0)}
    frame = pd.DataFrame(
        [row("pgd-at", s, eps, m=value) for eps, values in at.items() for s, value in enumerate(values)]
    )

    # 2, 3, 2.5, 9: up, down, up. Ranks: 1.5 1.5 3.5 3.5 5.5 5.5 7.5 7.5 against 1 5 2 6 3.5 3.5 7.5 7.5.
    said = f"rises in 2 of 3 steps of the radius (Spearman {26 / (40 * 41) ** 0.5:.2f} over 8 models)"
    assert trends["rises"](frame, "m") == said
    assert trends["rises"](frame[frame["eps"] == "1"], "m") == "was not measured at two radii"


def test_a_cell_is_the_mean_and_the_range_and_says_where_there_is_none(trends: dict[str, Any]) -> None:
    assert trends["spread"](pd.Series([0.1, 0.3])) == "0.2 (0.1 to 0.3)"
    assert trends["spread"](pd.Series([2.0])) == "2"
    assert trends["spread"](pd.Series([None, float("nan")])) == "-"


def test_a_claim_is_asked_of_every_model_that_was_measured(trends: dict[str, Any]) -> None:
    column = "measure/input-hessian/clean_top1_mean"
    rows = [row("standard", 0, robust=0.1, **{column: 4.0}), row("standard", 1, robust=0.1, **{column: 2.0})]
    rows += [row("pgd-at", seed, robust=0.5, **{column: value}) for seed, value in enumerate([1.0, 2.9, 3.0])]
    rows += [row("fast-at", 0, robust=0.4, **{column: 8.0}), row("fast-at", 1, robust=0.4)]

    lines = trends["task"](pd.DataFrame(rows), "digits")

    # The standard models' mean is 3: two of pgd-at's lie below it, and fast-at's second seed was not measured.
    [claim] = [line for line in lines if line.startswith("| The same, in the mean")]
    assert claim.endswith("| 2 of 4 | fast-at, pgd-at |")
    assert "| pgd-at | 0.5 | 2.3 (1 to 3) |" in lines


def test_without_a_standard_model_nothing_is_compared_with_it(trends: dict[str, Any]) -> None:
    compared, alone = "measure/input-hessian/clean_top1_mean", "measure/input-hessian/attack_energy_2"
    rows = [row("pgd-at", seed, robust=0.5, **{compared: 1.0, alone: 0.6}) for seed in range(2)]
    unmeasured = [row("standard", 0, robust=0.1, **{alone: 0.1})]

    for frame in (rows, rows + unmeasured):
        said = [line for line in trends["task"](pd.DataFrame(frame), "digits") if " of 2 |" in line]
        assert len(said) == 1
        assert said[0].startswith("| More than half of the attack's square")


def test_sharper_than_standard_at_the_same_radius_is_counted(trends: dict[str, Any]) -> None:
    column = "measure/param-hessian/moving_top1"
    rows = [row("pgd-at", 0, eps, **{column: value}) for eps, value in (("1/10", 1.0), ("1/5", 2.0))]
    rows += [row("standard", 0, eps, **{column: value}) for eps, value in (("1/10", 2.0), ("1/5", 1.0))]
    frame = pd.DataFrame(rows).assign(**{name: 1.0 for name in trends["SHOWN"] if name != column})

    lines = trends["logistic"](frame, "logistic-x")

    assert "* At the same radius, `pgd-at` is sharper than `standard` in 1 of 2." in lines
    assert any("attack moving rises in 1 of 1 steps" in line for line in lines)
