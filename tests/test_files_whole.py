"""A file is the old one or the new one, nothing temporary stays, and a disk without room is said as such."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from advbench import files
from advbench.files import FULL, Unwritable, alive, as_json, left_behind, started, sweep, temporaries

GONE = 2**22 + 1
"""No process has this number: it is above what Linux gives."""


def inside(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_replaced_and_the_old_one_kept_aside_where_asked(tmp_path: Path) -> None:
    path, aside = tmp_path / "deep" / "er" / "a.txt", tmp_path / "deep" / "er" / "a.old"

    files.write_bytes(path, b"1", aside)
    assert inside(path.parent) == ["a.txt"], "there was none to keep"
    files.write_bytes(path, b"2")
    assert inside(path.parent) == ["a.txt"]
    files.write_bytes(path, b"3", aside)
    assert (path.read_bytes(), aside.read_bytes()) == (b"3", b"2")
    assert inside(path.parent) == ["a.old", "a.txt"]


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[str], bytes]] = []

    def fsync(_: int) -> None:
        [name] = inside(tmp_path)
        seen.append((inside(tmp_path), (tmp_path / name).read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_bytes(tmp_path / "a.txt", b"whole")

    assert seen == [([f".a.txt.{os.getpid()}.tmp"], b"whole")]


def writers(folder: Path) -> list[Callable[[bytes], None]]:
    one, two = folder / "a.txt", folder / "b.txt"
    return [
        lambda content: files.write_bytes(one, content),
        lambda content: files.write_together({two: content, one: content}),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["one", "together"])
@pytest.mark.parametrize(
    ("error", "raised"), [(OSError(errno.ENOSPC, "No space left on device"), Unwritable), (KeyboardInterrupt(), None)]
)
def test_what_is_stopped_on_the_way_leaves_the_old_files_and_nothing_temporary(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    which: int,
    error: BaseException,
    raised: type[BaseException] | None,
) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"old")
    told: list[int] = []

    def fsync(_: int) -> None:
        told.append(1)
        if len(told) == 1 + which:  # of several files the second one
            raise error

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(raised or type(error)) as caught:
        writers(tmp_path)[which](b"new")

    assert inside(tmp_path) == ["a.txt", "b.txt"]
    assert {(tmp_path / name).read_bytes() for name in inside(tmp_path)} == {b"old"}
    if isinstance(caught.value, Unwritable):
        line = (
            f"{tmp_path / 'a.txt'}: cannot be written: No space left on device; make room there or give another folder"
            ": what was done is kept, and the same command goes on"
        )
        assert (caught.value.lines, str(caught.value)) == ((line,), line)
        assert (caught.value.errno, caught.value.strerror) == (errno.ENOSPC, "No space left on device")
        assert caught.value.errno in FULL


def test_an_error_without_words_is_told_by_its_own(tmp_path: Path) -> None:
    assert Unwritable(tmp_path, OSError("odd")).strerror == "odd"
    assert str(Unwritable(tmp_path, OSError("odd"))).startswith(f"{tmp_path}: cannot be written: odd; ")


def test_several_files_are_replaced_together(tmp_path: Path) -> None:
    files.write_together({tmp_path / "x" / "a.txt": b"1", tmp_path / "b.txt": b"2"})

    assert inside(tmp_path) == ["b.txt", "x", "x/a.txt"]
    assert ((tmp_path / "x" / "a.txt").read_bytes(), (tmp_path / "b.txt").read_bytes()) == (b"1", b"2")


def test_json_is_indented_by_one_ends_its_line_and_has_no_nan(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": [1, 2]})

    assert (tmp_path / "a.json").read_bytes() == as_json({"a": [1, 2]}) == b'{\n "a": [\n  1,\n  2\n ]\n}\n'
    assert json.loads(as_json(0.1)) == 0.1
    with pytest.raises(ValueError, match="JSON"):
        as_json(float("nan"))


def test_what_the_killed_left_in_a_results_folder_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left = [f"{folder}/.a.json.{GONE}.tmp" for folder in (".", "records/t", "runs/t/x", "measures/t")]
    left += [f"records/.merge.{GONE}.tmp/deep"]
    kept = [f"project/.a.json.{GONE}.tmp", f"runs/.a.json.{os.getpid()}.tmp", "runs/.a.json.old.tmp", "records/a.json"]
    for name in [*left, *kept]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    assert len(temporaries(tmp_path)) == 5 + 2
    sweep(tmp_path)

    assert [name for name in inside(tmp_path) if (tmp_path / name).is_file()] == sorted(kept)
    assert not (tmp_path / f"records/.merge.{GONE}.tmp").exists()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        (f".a.b.{GONE}.tmp", True),
        (".a.b.{mine}.tmp", False),
        (".a.b.tmp", False),
        (f".a.{2**70}.tmp", True),  # no number of a process at all
    ],
)
def test_a_temporary_file_is_left_behind_where_its_process_has_gone(name: str, left: bool) -> None:
    assert left_behind(Path(name.format(mine=os.getpid()))) == left


def test_somebody_else_s_process_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def kill(pid: int, signal: int) -> None:
        asked.append((pid, signal))
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert alive(1)
    assert asked == [(1, 0)], "and nothing is sent to it"


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux tells it")
def test_a_process_began_when_linux_says(monkeypatch: pytest.MonkeyPatch) -> None:
    # proc(5): the name in brackets is field 2, the state field 3, the start field 22.
    line = "7 (a) b) S " + " ".join(str(number) for number in range(4, 53))
    monkeypatch.setattr(Path, "read_text", lambda path, encoding: line if path == Path("/proc/7/stat") else "")

    assert started(7) == "22"
