from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import advbench
from advbench.board import build
from advbench.record import Record
from advbench.spec import BadInput

Lay = Callable[..., Path]
NAMES = ["README.md", "index.html", "board.csv", "board.json", "board.tex"]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in NAMES}


def test_build_writes_five_files_where_records_lies(tmp_path: Path, lay: Lay, records: list[Record]) -> None:
    lay(tmp_path, *records)
    assert build(tmp_path) == [tmp_path / name for name in NAMES]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*NAMES, "records"])
    first = contents(tmp_path)
    build(tmp_path / "records")
    assert contents(tmp_path) == first
    build(tmp_path, tmp_path / "deep" / "elsewhere")
    assert contents(tmp_path / "deep" / "elsewhere") == first


def test_the_records_folder_itself_may_be_here(
    tmp_path: Path, lay: Lay, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lay(tmp_path, *records) / "records")
    build(Path())
    assert (tmp_path / "index.html").is_file()


def test_equal_records_give_equal_bytes(tmp_path: Path, lay: Lay, records: list[Record], trained: Any) -> None:
    for seed, pgd in enumerate((0.1, 0.7, 0.3)):  # whose sum depends on its order
        records += [trained("fast-at", [pgd, 0.2], seed, task="v"), trained("pgd-at", [0.4, pgd], seed, task="v")]
    one = lay(tmp_path / "one", *records)
    other = lay(tmp_path / "other", *reversed(records))
    for path in other.glob("records/*/*/record.json"):
        # The same JSON with the keys of every object in the opposite order.
        turned = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        path.write_text(json.dumps(turned), encoding="utf-8")
    build(one)
    build(other)
    assert contents(one) == contents(other)
    assert str(tmp_path).encode() not in b"".join(contents(one).values())


def test_an_unreadable_record_is_named_and_nothing_is_written(tmp_path: Path, lay: Lay, make: Any) -> None:
    lay(tmp_path, make())
    bad = tmp_path / "records" / "t" / "broken-s0" / "record.json"
    bad.parent.mkdir()
    bad.write_text('{"schema": 1, "id"', encoding="utf-8")
    with pytest.raises(BadInput, match=re.escape(str(bad))):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records"]


def test_somebodys_own_readme_stays(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# My project\n", encoding="utf-8")
    with pytest.raises(BadInput, match="not written by `advbench board`"):
        build(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nowhere: no such folder"):
        build(tmp_path / "nowhere")


def test_no_torch() -> None:
    code = "import sys, advbench.board; sys.exit(any(m.split('.')[0] == 'torch' for m in sys.modules))"
    path = str(Path(advbench.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path}, timeout=60)
