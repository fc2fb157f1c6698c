from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from advbench.board import build
from advbench.board.page import amount, duration, escape_markdown, percent
from advbench.record import Flag, Record

Lay = Callable[..., Path]
DASH = "\N{EN DASH}"
COLLAPSED = Flag(name="catastrophic-overfitting", message="PGD fell to 3 % at epoch 17.")
NAMES = ["README.md", "index.html", "board.csv", "board.json", "board.tex"]
HOSTILE = "<script>alert('x')</script>|`*_[a](b)"


class Tags(HTMLParser):
    """Fails on a tag that is closed but not open, or open at the end; collects ids, references and text."""

    VOID = frozenset({"meta", "link", "br", "img", "circle", "path", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.references += [found[key] or "" for key in ("href", "src") if key in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_readme_shows_seeds_marks_failures_and_the_caveat(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").replace(DASH, "-").splitlines()
    assert (
        "| free-at | 1 | 90.0 | **40.0** | 40.0 | - | 60.0 | 10.0 s | 5.1 M | trained differently: epochs 8 |" in lines
    )
    assert (
        "| pgd-at | 2 | 90.0 | **31.5** † | 60.0, 3.0† | 3.0-60.0 | 60.0 † | 10.5 s | 5.1 M "
        "| 1 of 2 collapsed |" in lines
    )
    assert (
        "| mart | 1 | - | FAILED | FAILED | - | - | - | - | 1 of 1 FAILED: RuntimeError: loss is not finite |" in lines
    )
    assert sum("fewer than three seeds never support a claim" in line for line in lines) == 2
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {11}


@pytest.fixture
def spent(trained: Any) -> list[Record]:
    """Three defenses at unequal cost: a collapsed seed, a failed one, and one whose epoch is beyond the passes."""
    return [
        trained("pgd-at", [0.4, 0.5], 0, robust=0.5, forward=110, backward=110),
        trained("fast-at", [0.35, 0.3], 0, robust=0.4, forward=20, backward=20),
        trained("fast-at", [0.45, 0.0], 1, robust=0.1, forward=20, backward=20, flags=(COLLAPSED,)),
        trained("fast-at", [0.9], 2, error="Diverged: the training loss is nan"),
        trained("standard", [0.1, 0.05], 0, robust=0.0, clean=[0.8, 0.9], forward=10, backward=10, seconds=0.5),
    ]


def test_readme_ranks_at_equal_budgets_and_marks_the_same_seeds(tmp_path: Path, lay: Lay, spent: list[Record]) -> None:
    build(lay(tmp_path, *spent))
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").replace(DASH, "-").splitlines()
    start = lines.index("| Defense | # | After 2 epochs | # | After 80 passes | # | After 2.0 s |")
    assert lines[start + 2 : start + 5] == [
        "| pgd-at | 1 | 50.0 (50.0) | - | - (-) in 0 epochs | 1 | 50.0 (50.0) in 2 epochs |",
        "| fast-at | 2 | {0} | 1 | {0} in 2 epochs | 2 | {0} in 2 epochs |".format("40.0† (35.0, 45.0†, FAILED)"),
        "| standard | 3 | 5.0 (5.0) | 2 | 5.0 (5.0) in 2 epochs | 3 | 5.0 (5.0) in 2 epochs |",
    ]
    assert any("validation" in line and "not the robust accuracy" in line for line in lines[start + 5 :])


def test_html_draws_a_step_line_a_seed_and_marks_the_collapsed_one(
    tmp_path: Path, lay: Lay, spent: list[Record]
) -> None:
    build(lay(tmp_path, *spent))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert Tags(text).seen.count("caption") == 3
    # Passes 40 to 440 on a log scale: standard's first epoch, 20, is the left end, 440 the right one.
    steps = re.findall(r'class="step( bad)?" d="([^"]*)"', text)
    assert steps == [
        ("", "M121.4 23.4H155.0V20.0"),
        ("", "M38.6 25.1H72.3V25.1"),
        (" bad", "M38.6 21.7H72.3V21.7"),
        ("", "M5.0 33.6H38.6V35.3"),
    ]
    assert '<span class="bad" title="seed 1: collapsed">45.0†</span>' in text
    assert '<span class="seed bad" title="seed 1: collapsed">10.0' in text


def test_pages_without_a_history_have_no_budgets(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    for name in ("README.md", "index.html"):
        assert "equal budgets" not in (tmp_path / name).read_text(encoding="utf-8")


def test_html_is_balanced_complete_and_asks_for_nothing(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(ref in NAMES or (ref[0] == "#" and ref[1:] in page.ids) for ref in page.references)
    assert "script" not in page.seen
    assert "url(" not in text
    assert "@import" not in text
    assert page.seen.count("polyline") == 2
    for needed in ("PGD fell to 3 % at epoch 17.", '"epoch": 17', '"torch": "2.15.0"', "t-mart-0", "55.0-65.0"):
        assert needed in page.text.replace(DASH, "-")
    assert "advbench run t.toml --only t/pgd-at-s1" in page.text
    assert "1 of 1 FAILED: RuntimeError: loss is not finite" in page.text


def test_rows_of_html_tables_have_as_many_cells_as_columns(
    tmp_path: Path, lay: Lay, records: list[Record], spent: list[Record]
) -> None:
    build(lay(tmp_path, *(r.model_copy(update={"task": "v"}) for r in spent), *records))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    for table in re.findall(r"<table.*?</table>", text, re.S):
        # Of the header only the upper row: the lower one stands under cells that span both.
        rows = re.findall(r"<tr.*?</tr>", table, re.S)
        body = rows[-table.split("</thead>")[1].count("<tr") :]
        assert {width(row) for row in body} == {width(rows[0])}


def width(row: str) -> int:
    cells = re.findall(r"<t[hd]\b[^>]*>", row)
    return sum(int(span[1]) if (span := re.search(r'colspan="(\d+)"', cell)) else 1 for cell in cells)


def test_hostile_text_stays_text(tmp_path: Path, lay: Lay, make: Any) -> None:
    flag = Flag(name=HOSTILE, message=HOSTILE, evidence={HOSTILE: HOSTILE})
    records = [
        make(
            HOSTILE, 0, flags=(flag,), job={"title": HOSTILE, "deviations": {HOSTILE: HOSTILE}}, attacks={HOSTILE: 0.5}
        ),
        make(HOSTILE, 1, error=f"ValueError: {HOSTILE}", job={"title": HOSTILE}),
    ]
    build(lay(tmp_path, *records))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    page = Tags(text)
    assert HOSTILE in page.text
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "<script" not in readme
    assert "[a](b)" not in readme
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1


def test_a_folder_without_records_gives_a_page_that_says_how(tmp_path: Path) -> None:
    build(tmp_path)
    for name in ("README.md", "index.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "no records yet" in text
        assert "advbench run tasks/" in text
    Tags((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert (tmp_path / "board.csv").read_text(encoding="utf-8").startswith("task,label,defense,seed,")
    assert json.loads((tmp_path / "board.json").read_text(encoding="utf-8"))["tasks"] == []


def test_numbers_as_people_read_them() -> None:
    assert [percent(x) for x in (None, 0, 0.7334, 1)] == [DASH, "0.0", "73.3", "100.0"]
    assert [amount(x) for x in (None, 812, 812_000, 999_960, 5.1e6, 2e9, 3e12)] == [
        *(DASH, "812", "812.0 k", "1.0 M", "5.1 M", "2.0 G", "3.0 T")
    ]
    assert [duration(x) for x in (None, 6.14, 1860, 9000)] == [DASH, "6.1 s", "31 min", "2.5 h"]
    assert escape_markdown("a|b\n<i>_x_") == r"a\|b &lt;i&gt;\_x\_"
