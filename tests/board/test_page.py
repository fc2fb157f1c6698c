from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import paged
import pytest

from advbench.board import build
from advbench.board.numbers import amount, budget, duration, few, percent
from advbench.board.page import escape_markdown, markdown, ranks, spread
from advbench.board.support import Standing
from advbench.board.table import sections
from advbench.board.words import certainty
from advbench.record import Flag, Record

Lay = Callable[..., Path]
DASH = "\N{EN DASH}"
COLLAPSED = Flag(name="catastrophic-overfitting", message="PGD fell to 3 % at epoch 17.")
NAMES = ["README.md", "index.html", "board.csv", "board.json", "board.tex"]
HOSTILE = "<script>alert('x')</script>|`*_[a](b)"


class Tags(HTMLParser):
    """Fails on a tag that is closed but not open, or open at the end; collects ids, references and data."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.data: dict[str, Any] = {}
        """By id, the JSON that script elements carry."""
        self._reading = ""
        self.feed(text)
        self.close()
        assert self.open == []
        assert self.data == paged.parts(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        found = dict(attrs)
        self._reading = found["id"] or "" if found.get("type") == "application/gzip" else ""
        self.ids += [found["id"] or ""] if "id" in found else []
        self.references += [found[key] or "" for key in ("href", "src") if key in found]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._reading = ""

    def handle_data(self, data: str) -> None:
        if self._reading and self._reading not in paged.LIBRARIES:
            self.data[self._reading] = json.loads(paged.text(data))


def test_readme_shows_seeds_marks_failures_and_the_caveat(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    lines = (tmp_path / "README.md").read_text(encoding="utf-8").replace(DASH, "-").splitlines()
    assert (
        "| - | free-at | 1 | 90.0 | **40.0** | 40.0 | - | 60.0 | 10.0 s | 5.1 M | trained differently: epochs 8 |"
        in lines
    )
    assert (
        "| - | pgd-at | 2 | 90.0 | **31.5** † | 60.0, 3.0† | 3.0-60.0 | 60.0 † | 10.5 s | 5.1 M "
        "| 1 of 2 collapsed |" in lines
    )
    assert (
        "| - | mart | 1 | - | FAILED | FAILED | - | - | - | - | 1 of 1 FAILED: RuntimeError: loss is not finite |"
        in lines
    )
    assert sum("fewer than three seeds never support a claim" in line for line in lines) == 2
    tables = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {12}


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


def test_pages_without_a_history_have_no_budgets(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    assert "equal budgets" not in (tmp_path / "README.md").read_text(encoding="utf-8")
    page = Tags((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert [page.data[f"task-{t}"]["budgets"] for t in (0, 1)] == [[], []]


def test_html_is_balanced_complete_and_asks_for_nothing(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Tags(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(ref in (*NAMES, "#/") or (ref[0] == "#" and ref[1:] in page.ids) for ref in page.references)
    assert not {"img", "link", "iframe", "base", "object"} & set(page.seen)
    assert "default-src 'none'" in text
    held = page.data["record-0-1-1"]
    assert held["command"] == "advbench run t.toml --only t/pgd-at-s1"
    went = page.data["task-0"]["held"]["1-1"]
    assert went["flags"] == [{"name": COLLAPSED.name, "message": COLLAPSED.message, "evidence": {"epoch": 17}}]
    assert held["provenance"] == {"torch": "2.15.0"}
    assert held["scores"]["robust"]["low"] == 0
    [board] = [group for group in page.data["board"]["tasks"][0]["groups"] if group["label"] == "mart"]
    assert board["notes"] == [["failed", "1 of 1 FAILED: RuntimeError: loss is not finite"]]
    assert page.data["record-0-2-0"]["error"].endswith("RuntimeError: loss is not finite")


def test_readers_without_javascript_are_sent_to_the_readme(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    build(lay(tmp_path, *records))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    [said] = re.findall(r"<noscript>(.*?)</noscript>", text)
    assert '<a href="README.md">' in said


def test_the_readme_is_lines_without_gaps_or_ends_of_templates(tmp_path: Path, lay: Lay, spent: list[Record]) -> None:
    build(lay(tmp_path, *spent))
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert not re.search(r"\n\n\n|[ \t]\n|\n +[^ ]|\{[%{]", text)


def test_who_leads_is_said_with_how_sure_that_is_and_whose_notes_come_first(make: Any) -> None:
    standing = Standing(ranks={"a": (1, 1), "b": (2, 2)}, better={"a": ["b"], "b": []}, claim="checkpoints")
    for flags, notes in (((COLLAPSED,), " Read the notes of a first."), ((), "")):
        (section,) = sections([make("a", flags=flags), make("b", robust=0.1)])
        said = f"a is best (rank 1 of 2): better than the other.{notes} {certainty(standing)}"
        assert said in markdown([replace(section, standing=standing)]).replace("\\", "")


def test_studies_are_on_the_page_with_what_a_claim_is(tmp_path: Path, lay: Lay, make: Any) -> None:
    study = make("grow").model_copy(update={"job": {"title": "Growth", "study": {"name": "grow"}}})
    page = Tags(built(tmp_path, lay, [study]))
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert [one["title"] for one in page.data["board"]["studies"]] == ["Growth"]
    assert page.data["board"]["words"]["claims"] in readme
    assert (page.data["board"]["records"], page.data["board"]["tasks"]) == (0, [])
    plain = Tags(built(tmp_path / "plain", lay, [make()]))
    assert "studies" not in plain.data["board"]
    assert "claims" not in plain.data["board"]["words"]


def test_hostile_text_stays_text(tmp_path: Path, lay: Lay, make: Any) -> None:
    flag = Flag(name=HOSTILE, message=HOSTILE, evidence={HOSTILE: HOSTILE})
    records = [
        make(
            HOSTILE, 0, flags=(flag,), job={"title": HOSTILE, "deviations": {HOSTILE: HOSTILE}}, attacks={HOSTILE: 0.5}
        ),
        make(HOSTILE, 1, error=f"ValueError: {HOSTILE}", job={"title": HOSTILE}),
    ]
    plain = Tags(built(tmp_path / "plain", lay, [make()]))
    page = Tags(built(tmp_path / "hostile", lay, records))
    # The same elements, but for a second record's data; the names come out of the JSON as they went in.
    assert Counter(page.seen) - Counter(plain.seen) == {"script": 1}
    [group] = page.data["board"]["tasks"][0]["groups"]
    assert group["label"] == HOSTILE
    went = page.data["task-0"]["held"]["0-0"]
    assert went["flags"] == [{"name": HOSTILE, "message": HOSTILE, "evidence": {HOSTILE: HOSTILE}}]
    readme = (tmp_path / "hostile" / "README.md").read_text(encoding="utf-8")
    assert "<script" not in readme
    assert "[a](b)" not in readme
    rows = [line for line in readme.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1


def built(folder: Path, lay: Lay, records: list[Record]) -> str:
    build(lay(folder, *records))
    return (folder / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["<!--<script>", "x" * 10_000, "\u202eאבג", "../../x", "a/b?c#d"])
def test_any_name_can_be_read_again(tmp_path: Path, lay: Lay, make: Any, name: str) -> None:
    record = make(title := "t", job={"title": name}).model_copy(update={"label": name})
    file = tmp_path / "records" / title / "any-s0" / "record.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(record.plain()), encoding="utf-8")
    build(tmp_path)
    page = Tags((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert page.data["board"]["tasks"][0]["title"] == name
    assert page.data["board"]["tasks"][0]["groups"][0]["label"] == name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "records"])


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
    assert [amount(x) for x in (None, 812, 999.94, 999.96, 812_000, 999_940, 999_960, 5.1e6, 2e9, 3e12, 4e15)] == [
        *(DASH, "812", "1000", "1.0 k", "812.0 k", "999.9 k", "1.0 M", "5.1 M", "2.0 G", "3.0 T", "4000.0 T")
    ]
    assert [duration(x) for x in (None, 6.14, 119.94, 120, 1860, 7199, 7200, 9000)] == [
        *(DASH, "6.1 s", "119.9 s", "2 min", "31 min", "120 min", "2.0 h", "2.5 h")
    ]
    said = [budget(kind, x) for kind, x in (("seconds", 6.14), ("epochs", 1), ("epochs", 30), ("passes", 155_300))]
    assert said == ["6.1 s", "1 epoch", "30 epochs", "155.3 k passes"]
    assert (few(5, 5), few(4, 5)) == ("5", f"4{DASH}5")
    assert (spread(0.1, 0.2, 2), spread(0.1, 0.1, 1)) == (f"10.0{DASH}20.0", DASH)
    assert (ranks(None), ranks((1, 1)), ranks((2, 5))) == (DASH, "1", f"2{DASH}5")
    assert escape_markdown('a|b\n<i>_x_ "it\'s"') == r"a\|b &lt;i&gt;\_x\_ " + '"it\'s"'
