"""`advbench board` given what it cannot use: one line, exit code 2, the old board left whole, nothing elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from advbench.board import PAGES, build
from advbench.record import SCHEMA, Record
from advbench.spec import BadInput

Lay = Callable[..., Path]
DEEP = "[" * 5_000 + "]" * 5_000


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that ended with exit code 2."""
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    assert line.startswith("advbench: ")
    return line


@pytest.fixture
def built(tmp_path: Path, lay: Lay, records: list[Record]) -> Path:
    """A results folder with its board."""
    build(lay(tmp_path / "results", *records))
    return tmp_path / "results"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"schema": 1', f'"schema": {SCHEMA + 1}'), "record schema 2, this advbench reads 1"),
        (lambda text: text.replace('"title"', f'"deep": {DEEP}, "title"'), "deep"),
        (lambda text: text.replace('"epochs": 30', '"epochs": 1e400'), "1e400 is not a number that a record can hold"),
        (lambda text: text.replace('"epochs": 30', '"epochs": NaN'), "NaN is not a number that a record can hold"),
        (lambda text: text.replace('"seed": 0', f'"seed": {"9" * 4_000}'), "9999... is not a number that"),
        (lambda text: text.replace('"status": "ok"', '"status": "<b>"'), "status: should be 'ok' or 'failed'"),
        (lambda text: text[: len(text) // 2], "not a record"),
        (lambda text: "", "not a record"),
    ],
    ids=["future schema", "deep", "infinite", "nan", "4,000 digits", "status", "half", "empty"],
)
def test_a_record_that_cannot_be_read_is_named_and_the_old_board_stays(
    built: Path, command: Callable[..., Any], change: Callable[[str], str], said: str
) -> None:
    bad = built / "records" / "t" / "bad-s0" / "record.json"
    bad.parent.mkdir()
    good = (built / "records" / "t" / "pgd-at-s0" / "record.json").read_text("utf-8")
    bad.write_text(change(good), "utf-8")
    assert bad.read_text("utf-8") != good
    before = contents(built)

    line = refused(command(built.parent, "board", "results"))

    assert said in line
    assert "results/records/t/bad-s0/record.json: " in line
    assert contents(built) == before


@pytest.mark.parametrize("out", ["file", "file/below"])
def test_an_output_folder_that_is_a_file_is_refused(built: Path, command: Callable[..., Any], out: str) -> None:
    (built.parent / "file").write_text("mine", "utf-8")
    before = contents(built.parent)

    line = refused(command(built.parent, "board", "results", "-o", out))
    assert f"advbench: {out}/README.md: cannot be written: " in line
    assert contents(built.parent) == before


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount, for a disk that is full")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_leaves_the_old_board(built: Path, small: Path, command: Callable[..., Any]) -> None:
    for name in PAGES:
        (small / name).write_bytes((built / name).read_bytes() if name == "README.md" else b"old")
    (small / "README.md").write_bytes((built / "README.md").read_bytes()[:200])
    before = contents(small)

    line = refused(command(built.parent, "board", "results", "-o", "small"))

    assert "No space left on device" in line
    assert contents(small) == before


def test_nothing_that_a_record_names_leads_out_of_its_folder(tmp_path: Path, lay: Lay, make: Any) -> None:
    (tmp_path / "secret.txt").write_text("a secret", "utf-8")
    (tmp_path / "examples.parquet").write_text("a secret", "utf-8")
    results = lay(tmp_path / "results", make(label="../../../x", job={"title": "/etc/passwd"}))
    (path,) = results.rglob("record.json")
    raw = json.loads(path.read_text("utf-8"))
    raw["task"] = "../../y"
    raw["files"] = dict.fromkeys(["../../../../secret.txt", "/etc/passwd", "examples.parquet"], "0" * 64)
    path.write_text(json.dumps(raw), "utf-8")
    (path.parent / "examples.parquet").symlink_to(tmp_path / "secret.txt")
    before = contents(tmp_path)

    build(results, tmp_path / "out")

    assert {name: content for name, content in contents(tmp_path).items() if not name.startswith("out/")} == before
    assert sorted(contents(tmp_path / "out")) == sorted(PAGES)
    assert b"a secret" not in b"".join(contents(tmp_path / "out").values())
    assert Path("/etc/passwd").read_bytes()[:20] not in b"".join(contents(tmp_path / "out").values())


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
