"""The page of claims is what the committed records say, and the README counts them."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from advbench.experiment import check
from advbench.record import load_all
from advbench.task import read
from advbench.theory import resolve


@pytest.fixture(scope="module")
def lines(repo: Path) -> list[str]:
    page: dict[str, Any] = runpy.run_path(str(repo / "docs" / "claims.py"))
    return page["table"](repo / "leaderboard")


def test_the_page_has_the_table(repo: Path, lines: list[str]):
    text = (repo / "docs" / "claims.md").read_text("utf-8")
    found = re.search(r"<!-- claims -->\n(.*?</details>)\n", text, re.DOTALL)

    assert found
    assert found[1].splitlines() == lines


def test_the_readme_has_the_sums(repo: Path, lines: list[str]):
    sums = [int(number) for number in re.findall(r"\d+", lines[lines.index("") - 1])]
    readme = " ".join((repo / "README.md").read_text("utf-8").split())
    said = re.search(r"of (\d+) claims in (\d+) studies, .*? (\d+) hold, (\d+) do not and (\d+) are undecided", readme)

    assert said
    assert [int(number) for number in said.groups()] == [sum(sums[1:]), *sums]


def test_every_study_has_a_line_and_the_sums_are_sums(lines: list[str]):
    short = lines[2 : lines.index("")]
    rows = [[int(cell) for cell in re.findall(r"\| (\d+) (?=\|)", line)] for line in short]

    assert [sum(column) for column in zip(*rows[:-1], strict=True)] == rows[-1]
    said = [line.split(" | ")[-1].strip(" |") for line in lines[lines.index("") :] if line.startswith("| `")]
    assert [said.count(verdict) for verdict in ("holds", "does not hold", "undecided")] == rows[-1]


def test_the_studies_records_are_of_the_tasks_as_they_are_today(repo: Path):
    files = sorted((repo / "tasks" / "theory").glob("*.toml"))
    planned: dict[str, str] = {}
    for file in files:
        assert check(read(file))[1] == []
        items = resolve(file, read(file), repo / "data").items
        planned |= {item.path: item.job.id for item in items if item.job}
    committed = {
        f"{r.task}/{r.label}-s{r.seed}": r.id for r in load_all(repo / "leaderboard" / "records") if r.of_study
    }

    assert files
    assert committed == planned
