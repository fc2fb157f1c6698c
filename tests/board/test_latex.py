"""board.tex: its structure, its numbers, and names that would break a table or run a command."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench.board.latex import SPECIAL, escape, latex
from advbench.board.table import sections
from advbench.record import Record

Make = Callable[..., Record]


def rows(tex: str) -> list[list[str]]:
    """The cells of every table's body."""
    bodies = re.findall(r"\\midrule\n(.*?)    \\bottomrule", tex, re.DOTALL)
    return [re.split(r" (?<!\\)& ", line.strip().removesuffix(r" \\")) for body in bodies for line in body.splitlines()]


def test_a_row_has_the_group_s_mean_range_and_mark(records: list[Record]):
    tex = latex(sections(records))

    assert rows(tex) == [
        ["free-at", "1", "90.0", "40.0", "--", r"5.1\,M"],
        ["pgd-at", "2", "90.0", r"31.5$^\dagger$", "3.0--60.0", r"5.1\,M"],
        ["mart", "0 of 1", "--", r"--$^\dagger$", "--", "--"],
        ["pgd-at", "1", "90.0", "25.0", "--", r"5.1\,M"],
    ]


def test_a_task_is_a_table_that_says_what_it_shows(records: list[Record]):
    one, other = re.findall(r"\\begin\{table\}\n.*?\\end\{table\}\n", latex(sections(records)), re.DOTALL)

    assert [re.sub(r"\{.*", "", line.strip()) for line in one.splitlines() if "&" not in line] == [
        r"\begin",
        r"\centering",
        r"\caption",
        r"\label",
        r"\begin",
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
        r"\end",
        r"\end",
    ]
    assert r"\label{tab:t}" in one
    assert "autoattack on 360 test examples: means over seeds" in one
    assert r"$^\dagger$~a seed has a flag or other settings" in one
    assert "pgd-at: 1 of 2 collapsed." in one
    assert "free-at: trained differently: epochs 8." in one
    assert "mart: 1 of 1 FAILED: RuntimeError: loss is not finite." in one
    assert r"\dagger" not in other


@pytest.mark.parametrize(("more", "cut"), [(0, False), (1, True)])
def test_a_note_of_a_hundred_characters_is_whole(make: Make, more: int, cut: bool):
    words = "ValueError: " + "word " * 14 + "abc" + "d" * more
    tex = latex(sections([make("a", error=words)]))

    assert len(f"1 of 1 FAILED: {words}") == 100 + more
    assert (f"a: 1 of 1 FAILED: {words}." in tex) == (not cut)
    assert ("word {[}...]." in tex) == cut


def test_the_protocol_is_left_out_where_there_is_none(make: Make):
    assert r"Accuracy in \%, robust accuracy: means over seeds" in latex(sections([make(error="x")]))


def test_no_record_is_no_table():
    assert r"\begin" not in latex([])


@pytest.mark.parametrize("character", SPECIAL)
def test_every_special_character_is_escaped(character):
    assert escape(f"a{character}b") == f"a{SPECIAL[character]}b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        (r"100 % _of_ $x^2$ & #1~", r"100 \% \_of\_ \$x\textasciicircum{}2\$ \& \#1\textasciitilde{}"),
        ("a\nb\t\x00c\u2028d", "a b c d"),
        ("--only ,,x", "-{}-only ,{},x"),
        ("----", "-{}-{}-{}-"),
        ("[x]", "{[}x]"),
        ("École 学校", "École 学校"),
        ("{{ x }} {% y %}", r"\{\{ x \}\} \{\% y \%\}"),
    ],
)
def test_text_is_set_as_it_is(text, shown):
    assert escape(text) == shown


def test_what_a_record_says_is_never_a_command(make: Make):
    nasty = "\\end{table}\\input{x} % & $ # _ ^ ~ } {"
    error = f"Traceback\nRuntimeError: {nasty}" + "x" * 10_000
    job: dict[str, Any] = {"title": nasty, "data": {"name": nasty}, "model": {"name": nasty}}
    hostile = [make(nasty, task=nasty, job=job), make(nasty, 1, task=nasty, job=job, error=error)]
    harmless = [make("x", task="x", job={"title": "x"}), make("x", 1, task="x", error="RuntimeError: x")]
    tex = latex(sections(hostile))

    commands = set(re.findall(r"\\[a-zA-Z]+", latex(sections(harmless))))
    meant = {"\\textbackslash", "\\textasciicircum", "\\textasciitilde"}
    assert set(re.findall(r"\\[a-zA-Z]+", tex)) <= commands | meant
    body = tex.replace(r"\{", "").replace(r"\}", "").replace(r"\%", "")
    assert body.count("{") == body.count("}")
    assert all(line.startswith("%") or "%" not in line for line in body.splitlines())
    assert len(rows(tex)) == 1
    assert len(tex) < 3000


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex, with booktabs")
def test_it_compiles(tmp_path: Path, make: Make, records: list[Record]):
    every = "[" + "".join(SPECIAL) + "--,,"
    tex = latex(sections([*records, make(every, task=every, job={"title": every})]))
    packages = "".join(f"\\usepackage{package}\n" for package in ("[T1]{fontenc}", "{textcomp}", "{booktabs}"))
    head = f"\\documentclass{{article}}\n{packages}\\begin{{document}}\n"
    (tmp_path / "paper.tex").write_text(f"{head}{tex}\\end{{document}}\n", encoding="utf-8")

    command = ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Missing character" not in done.stdout


def test_tasks_that_are_spelled_alike_have_labels_of_their_own(make: Make):
    tex = latex(sections([make(task=task) for task in ("a_b", "a b", "c", "学校", "§")]))

    labels = re.findall(r"\\label\{(.*?)\}", tex)
    assert len(set(labels)) == 5
    assert "tab:c" in labels
    assert all(re.fullmatch(r"tab:[a-z0-9-]+", label) for label in labels)
