"""What a page has room for, and what it says of the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from advbench.board import build, details
from advbench.board.details import turns
from advbench.board.table import sections
from advbench.spec import BadInput


def test_every_defense_shows_its_first_seed_before_any_shows_its_second(make: Any):
    found = sections([make("a", 0), make("a", 1), make("b", 0, 0.4), make("c", 3, task="u")])

    assert [place for place, _ in turns(found)] == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_what_has_no_room_is_left_out_and_the_rest_is_there(
    tmp_path: Path, lay: Any, make: Any, monkeypatch: pytest.MonkeyPatch
):
    home = lay(tmp_path, *(make(label, seed) for label in "ab" for seed in range(3)))
    build(home)
    whole = (home / "index.html").read_text("utf-8")
    size = len(re.findall(r'id="record-0-0-0">(.*?)</script>', whole)[0])
    monkeypatch.setitem(details.BUDGETS, "details", 3 * size + 100)
    build(home)
    page = (home / "index.html").read_text("utf-8")

    assert len(re.findall('id="record-', whole)) == 6
    assert re.findall(r'id="(record-[^"]*)"', page) == ["record-0-0-0", "record-0-0-1", "record-0-1-0"]
    board = json.loads(re.findall(r'id="board">(.*?)</script>', page)[0])
    assert (board["records"], board["embedded"]) == (6, 3)
    assert [len(group["seeds"]) for group in board["tasks"][0]["groups"]] == [3, 3]


def test_each_kind_has_its_share_and_what_those_before_it_left(
    tmp_path: Path, lay: Any, make: Any, monkeypatch: pytest.MonkeyPatch
):
    home = lay(tmp_path, make("a"), make("b"))
    monkeypatch.setattr(details, "BUDGETS", {"details": 10**6, "arrays": 2_000, "images": 2_000, "examples": 2_000})
    monkeypatch.setattr(details.arrays, "of", lambda folder, record: ["x" * 5_000])
    monkeypatch.setattr(details.examples, "images", lambda folder, record: ["x" * 999_999])
    monkeypatch.setattr(details.examples, "of", lambda folder, record: ["x" * 5_000])
    build(home)
    page = (home / "index.html").read_text("utf-8")
    held = [json.loads(re.findall(rf'id="record-0-{g}-0">(.*?)</script>', page)[0]) for g in (0, 1)]

    # Of the million that settings have not used, arrays and examples have enough; no image is so small.
    assert [sorted({"arrays", "images", "examples"} & one.keys()) for one in held] == [["arrays", "examples"]] * 2
    assert all("adversarial.safetensors of the record" in one["left"]["images"] for one in held)


def test_fifty_rows_of_the_largest_records_stay_under_eight_megabytes(tmp_path: Path, lay: Any, make: Any):
    job = {"note": {"text": "<" * 30_000}}
    records = [
        make(f"defense-{i}", seed).model_copy(update={"provenance": job}) for i in range(50) for seed in range(3)
    ]
    build(lay(tmp_path, *records))

    assert (tmp_path / "index.html").stat().st_size < 8_000_000


def test_an_output_that_is_a_file_is_one_line(tmp_path: Path, lay: Any, make: Any):
    home = lay(tmp_path / "results", make())
    (tmp_path / "out").write_text("mine", "utf-8")

    with pytest.raises(BadInput, match="cannot be written"):
        build(home, tmp_path / "out")
    assert (tmp_path / "out").read_text("utf-8") == "mine"


def test_numbers_beyond_all_measure_are_one_line_and_the_old_page_stays(tmp_path: Path, lay: Any, make: Any):
    build(lay(tmp_path, make()))
    before = (tmp_path / "index.html").read_bytes()
    file = tmp_path / "records" / "t" / "pgd-at-s0" / "record.json"
    file.write_text(file.read_text("utf-8").replace("3000000", "9" * 400), "utf-8")

    with pytest.raises(BadInput, match=r"record\.json"):
        build(tmp_path)
    assert (tmp_path / "index.html").read_bytes() == before
