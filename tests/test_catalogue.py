"""`advbench list`: every part that a task file can name is there, in words and in JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advbench import catalogue, find

KINDS = {
    "defenses": find.shipped("baselines"),
    "attacks": find.PACKAGE / "attacks",
    "collectors": find.PACKAGE / "collectors",
    "datasets": find.PACKAGE / "data",
    "models": find.PACKAGE / "models",
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_of_a_folder_is_a_row_with_a_line_about_it(kind):
    rows = catalogue.rows(kind)

    # A library's line says how to name one of its models: torchvision:NAME.
    assert [row["name"].removesuffix(":NAME") for row in rows] == find.names(KINDS[kind])
    assert all(row["about"] and "\n" not in row["about"] for row in rows)


def test_a_library_is_one_line_that_shows_its_prefix():
    names = [row["name"] for row in catalogue.rows("models")]

    assert [name for name in names if ":" in name] == ["timm:NAME", "torchvision:NAME"]
    attacks = [row["name"] for row in catalogue.rows("attacks")]
    assert [name for name in attacks if ":" in name] == ["foolbox:NAME", "torchattacks:NAME"]


def test_tasks_of_all_suites_are_listed_with_their_paths():
    rows = catalogue.rows("tasks")

    assert {"digits-linf", "mnist-linf"} <= {row["name"] for row in rows}
    assert all(Path(row["path"]).stem == row["name"] and row["about"] for row in rows)


def test_defenses_and_attacks_name_their_papers_and_norms():
    defenses = {row["name"]: row for row in catalogue.rows("defenses")}

    assert defenses["pgd-at"]["norms"] == ["Linf", "L2", "L1"]
    assert (defenses["pgd-at"]["forward"], defenses["pgd-at"]["backward"]) == (11, 11)
    assert all({"name", "paper", "norms", "forward", "backward"} <= row.keys() for row in defenses.values())
    assert all(row["paper"] for row in [*defenses.values(), *catalogue.rows("attacks")])


@pytest.mark.parametrize("kind", [*KINDS, "tasks"])
def test_json_is_the_rows_and_nothing_else(kind, capsys):
    catalogue.show(kind, as_json=True)

    printed = capsys.readouterr()
    assert json.loads(printed.out) == catalogue.rows(kind)
    assert printed.err == ""


def test_names_and_sentences_are_shown_as_they_are(monkeypatch, capsys):
    odd = [{"name": "a[b]c", "about": ":smile: [bold]x[/bold]", "norms": ["L2", "Linf"], "forward": 2.0, "backward": 3}]
    monkeypatch.setattr(catalogue, "rows", lambda kind: odd)
    catalogue.show("models", as_json=False)

    heads, facts, about = capsys.readouterr().out.splitlines()
    assert heads == "name   norms     passes a step"
    assert facts == "a[b]c  L2, Linf  2 forward, 3 backward"
    assert about.strip() == ":smile: [bold]x[/bold]"


def test_what_has_a_name_alone_needs_no_heading(monkeypatch, capsys):
    row = {"name": "a", "about": "b c"}
    bold: list[bool] = []
    monkeypatch.setattr(catalogue.typer, "secho", lambda line, bold=False: bold_lines(line, bold))

    def bold_lines(line: str, yes: bool) -> None:
        bold.append(yes)
        print(line)  # noqa: T201

    for rows, out in (
        ([row], "a\n    b c\n"),
        ([row | {"claims": 3}], "name  claims\na     3\n    b c\n"),
        ([row | {"paper": "p", "path": "q"}], "a\n    b c\n    p\n    q\n"),
    ):
        monkeypatch.setattr(catalogue, "rows", lambda _, rows=rows: rows)
        catalogue.show("studies", as_json=False)
        assert capsys.readouterr().out == out
    assert bold == [True] * 3, "names stand out on a terminal"
    catalogue.show("studies", as_json=True)
    assert capsys.readouterr().out.startswith('[\n {\n  "name": "a",\n')


def test_a_study_says_how_many_claims_it_makes():
    rows = catalogue.rows("studies")

    assert [row["name"] for row in rows] == find.names(find.PACKAGE / "studies")
    assert all(row["claims"] >= 1 and row["about"] and row["paper"] for row in rows)


@pytest.mark.parametrize("kind", [*KINDS, "tasks", "studies"])
def test_at_80_columns_no_word_is_broken_and_no_line_is_longer(kind, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    catalogue.show(kind, as_json=False)

    out = capsys.readouterr().out
    whole = set(out.split())
    for row in catalogue.rows(kind):
        assert {word for key in ("name", "about", "paper", "path") for word in row.get(key, "").split()} <= whole
    # A path longer than the line stays whole, so that it can be copied.
    assert [line for line in out.splitlines() if len(line) > 80 and len(line.split()) > 1] == []
