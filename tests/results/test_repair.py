"""Records that are damaged: which of them a run makes again, and what it says of the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from advbench.index import Index
from advbench.plan import Item
from advbench.results.clean import DAMAGED
from advbench.results.repair import aside, broken, unreadable
from advbench.spec import BadInput


def planned(label: str, **fields: object) -> Item:
    return Item(task="t", label=label, seed=0, base=Path(), **fields)  # type: ignore[arg-type]


def changed(folder: Path) -> Path:
    """Its record, with another number in it."""
    file = folder / "record.json"
    raw = json.loads(file.read_bytes())
    file.write_text(json.dumps(raw | {"seed": 7}), "utf-8")
    return file


DAMAGES = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:200]),
    "no object": lambda file: file.write_bytes(b"[]"),
    "too deep": lambda file: file.write_bytes(b"[" * 10**5),
    "no record, and not what was sealed": lambda file: file.write_text('{"sha256": "0"}', "utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_and_planned_is_made_again_and_anything_else_is_told(tmp_path: Path, lay, damage: str):
    lay(tmp_path, "good")
    file = lay(tmp_path, "bad") / "record.json"
    DAMAGES[damage](file)

    assert unreadable(tmp_path, {"t/bad-s0", "t/good-s0"}) == [file]
    with pytest.raises(BadInput) as caught:
        unreadable(tmp_path, {"t/good-s0"})
    [line] = caught.value.lines
    assert line.startswith(f"{file}: ")
    assert line.endswith(f"; `advbench results verify {tmp_path}`")


def test_a_whole_record_that_this_version_does_not_read_is_not_made_again(tmp_path: Path, lay):
    file = lay(tmp_path, "a") / "record.json"
    file.write_text('{"schema": 99}', "utf-8")  # of a later version, which seals otherwise
    with pytest.raises(BadInput, match="advbench results verify"):
        unreadable(tmp_path, {"t/a-s0"})


def test_damaged_records_are_kept_under_another_name(tmp_path: Path, lay):
    sealed = changed(lay(tmp_path, "sealed"))
    cut, mended, gone = (lay(tmp_path, label) / "record.json" for label in ("cut", "mended", "gone"))
    cut.write_bytes(b"{")
    gone.unlink()  # another run was faster
    whole, half = mended.read_bytes(), sealed.read_bytes()

    assert aside([sealed, cut, mended, gone]) == [
        f"{file}: was damaged and is made again; kept as {DAMAGED}" for file in (sealed, cut)
    ]
    assert (sealed.with_name(DAMAGED).read_bytes(), cut.with_name(DAMAGED).read_bytes()) == (half, b"{")
    assert [file.exists() for file in (sealed, cut, mended, gone)] == [False, False, True, False]
    assert mended.read_bytes() == whole


def test_a_record_whose_files_are_others_is_told_with_who_makes_it_again(tmp_path: Path, lay):
    for label in ("here", "kept", "elsewhere", "good"):
        folder = lay(tmp_path, label)
        if label != "good":
            (folder / "examples.parquet").write_bytes(b"")
    items = [planned("here"), planned("kept", cached=True), planned("good")]
    of = {label: tmp_path / "records" / "t" / f"{label}-s0" for label in ("elsewhere", "here", "kept")}
    assert broken(tmp_path, Index(tmp_path), items) == [
        f"{of['elsewhere']}: is not what was written; its task makes it again",
        f"{of['here']}: is not what was written; made again",
        f"{of['kept']}: is not what was written; its task makes it again",
    ]
