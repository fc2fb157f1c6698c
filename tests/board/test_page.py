from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from advbench.board import build
from advbench.board.page import amount, duration, escape_markdown, percent
from advbench.record import Flag, Record

Lay = Callable[..., Path]
DASH = "\N{EN DASH}"
NAMES = ["README.md", "index.html", "board.csv", "board.json"]
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
        "| pgd-at | 2 | 90.0 | **31.5** † | 60.0, 3.0† | 3.0-60.0 | 60.0 | 10.5 s | 5.1 M "
        "| 1 of 2 catastrophic-overfitting |" in lines
    )
    assert (
        "| mart | 1 | - | FAILED | FAILED | - | - | - | - | 1 of 1 FAILED: RuntimeError: loss is not finite |" in lines
    )
    assert sum("fewer than three seeds never support a claim" in line for line in lines) == 2
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {11}


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


def test_rows_of_html_tables_have_as_many_cells_as_columns(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
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
