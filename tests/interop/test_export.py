"""What all formats have in common: bad input is a line, nothing is half written, equal records give equal bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from advbench import interop
from advbench.spec import BadInput

Lay = Callable[..., Path]
KINDS = ["huggingface", "parquet", "robustbench", "tensorboard"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refused(*arguments: object) -> str:
    with pytest.raises(BadInput) as caught:
        interop.export(*arguments)  # pyright: ignore[reportArgumentType]
    [line] = caught.value.lines
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_equal_records_give_equal_bytes_wherever_they_lie(tmp_path: Path, lay: Lay, kind):
    for name in ("one", "other"):
        for seed in (0, 1):
            folder = lay(tmp_path / name, seed=seed)
        if name == "other":  # the same JSON with its keys in the opposite order
            file = folder / "record.json"
            turned = json.loads(file.read_text("utf-8"), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
            file.write_text(json.dumps(turned), encoding="utf-8")
        interop.export(kind, tmp_path / name, tmp_path / "out" / name)

    one, other = (contents(tmp_path / "out" / name) for name in ("one", "other"))
    assert one == other
    assert len(one) == 2
    assert str(tmp_path).encode() not in b"".join(one.values())


@pytest.mark.parametrize("kind", KINDS)
def test_no_record_and_no_folder_are_told(tmp_path: Path, kind):
    assert refused(kind, tmp_path, tmp_path / "out").startswith(f"{tmp_path}: holds no record; give")
    assert refused(kind, tmp_path / "absent", tmp_path / "out").startswith(f"{tmp_path / 'absent'}: no such file or")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_that_is_a_file_or_below_one_is_told(tmp_path: Path, lay: Lay, kind):
    folder = lay(tmp_path)
    (tmp_path / "file").write_text("mine", encoding="utf-8")

    assert refused(kind, folder, tmp_path / "file").endswith("file: a file; -o takes the folder that the files go into")
    assert refused(kind, folder, tmp_path / "file" / "x").endswith("Not a directory; choose another folder with -o")
    assert (tmp_path / "file").read_text("utf-8") == "mine"


@pytest.mark.parametrize("kind", ["huggingface", "robustbench", "tensorboard"])
def test_failed_jobs_are_left_out_and_counted(tmp_path: Path, lay: Lay, kind):
    lay(tmp_path, seed=0)
    lay(tmp_path, seed=1, error="RuntimeError: x")
    failed = lay(tmp_path, seed=2, error="RuntimeError: x")

    assert interop.export(kind, tmp_path, tmp_path / "out")[-1] == "left out: 2 of 3 records, whose jobs FAILED"
    assert len(contents(tmp_path / "out")) == 1
    assert refused(kind, failed, tmp_path / "none").endswith("every job FAILED: nothing to export; run them again")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["huggingface", "parquet", "robustbench"])
def test_a_damaged_record_leaves_what_was_there(tmp_path: Path, lay: Lay, kind):
    lay(tmp_path, seed=0)
    last = lay(tmp_path, seed=1)
    interop.export(kind, tmp_path, tmp_path / "out")
    before = contents(tmp_path / "out")
    (last / "record.json").write_text('{"schema": 1', encoding="utf-8")

    assert refused(kind, tmp_path, tmp_path / "out").startswith(f"{last / 'record.json'}: not a record")
    assert contents(tmp_path / "out") == before


def test_a_number_without_room_is_a_line(tmp_path: Path, lay: Lay):
    folder = lay(tmp_path, seed=10**30)

    assert refused("parquet", folder, tmp_path / "out").endswith("0 is not a number that a record can hold")
    assert contents(tmp_path / "out") == {}


ABOUT = {
    "unknown": ('auhtors = "x"', "no field 'auhtors'; did you mean 'authors'?"),
    "type": ("[pgd-at]\nvenue = 3", "venue: should be a valid string, not 3"),
    "id": ('id = "../x"', "id: should match pattern"),
    "reported": ('reported = "about half"', "reported: should match pattern"),
    "syntax": ("a = = 1", "cannot be read: Invalid value (at line 1, column 5)"),
}


@pytest.mark.parametrize("case", ABOUT)
def test_a_mistake_in_what_the_user_says_is_a_line(tmp_path: Path, lay: Lay, case):
    text, why = ABOUT[case]
    (tmp_path / "about.toml").write_text(text, encoding="utf-8")

    line = refused("robustbench", lay(tmp_path), tmp_path / "out", tmp_path / "about.toml")
    assert line.startswith(f"{tmp_path / 'about.toml'}: {why}")


def test_what_has_no_place_in_a_format_is_refused(tmp_path: Path, lay: Lay):
    line = refused("parquet", lay(tmp_path), tmp_path / "out", tmp_path / "about.toml")
    assert line == f"--about {tmp_path / 'about.toml'}: parquet has no fields for it"
    (tmp_path / "entries.json").write_text("{}", encoding="utf-8")
    line = refused("robustbench", tmp_path / "entries.json", tmp_path / "out", tmp_path / "about.toml")
    assert line.startswith(f"--about {tmp_path / 'about.toml'}: {tmp_path / 'entries.json'} is of `advbench import`")
    assert refused("csv", lay(tmp_path), tmp_path / "out").startswith("no format 'csv'; known: huggingface, parquet,")


@pytest.mark.parametrize("kind", KINDS)
def test_no_format_needs_torch(tmp_path: Path, lay: Lay, kind):
    code = (
        "import sys; from pathlib import Path; from advbench import interop\n"
        f"interop.export({kind!r}, Path({str(lay(tmp_path))!r}), Path({str(tmp_path / 'out')!r}))\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
