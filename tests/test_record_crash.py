"""Records whose writing is cut short, by a crash or a full disk: what was there stays, or is known to be broken."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from advbench.files import Unwritable, write_bytes
from advbench.record import BESIDE, Record, load, save, whole

OLDER: dict[str, bytes] = dict.fromkeys(BESIDE, b"older")
NEWER: dict[str, bytes] = dict.fromkeys(BESIDE, b"newer")


def record(status: str = "ok") -> Record:
    return Record.model_validate(
        {"id": "5f0c", "task": "t", "defense": "d", "label": "d", "seed": 0, "status": status, "job": {}}
    )


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("step", range(4))
def test_a_crash_at_any_move_leaves_no_scrap_and_the_old_record_or_one_that_is_known_to_be_broken(
    tmp_path: Path, monkeypatch, step, again
):
    before = save(record(), tmp_path, OLDER) if again else None
    moves = 0
    replace = Path.replace

    def crashing(self: Path, target: Path) -> Path:
        nonlocal moves
        if moves == step:
            raise OSError("power")
        moves += 1
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crashing)
    with pytest.raises(OSError, match="power"):
        save(record(), tmp_path, NEWER)

    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "record.json").exists() == again
    assert before is None or (load(tmp_path / "record.json") == before and whole(before, tmp_path) == (step == 0))
    monkeypatch.undo()
    assert whole(save(record(), tmp_path, NEWER), tmp_path)


@pytest.mark.parametrize("step", range(4))
def test_a_disk_that_is_full_costs_no_record(tmp_path: Path, monkeypatch, step):
    before = save(record(), tmp_path, OLDER)
    flushed = iter(range(4))

    def full(_: int) -> None:
        if next(flushed) == step:
            raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(Unwritable, match="no space"):
        save(record(status="failed"), tmp_path, NEWER)

    assert whole(load(tmp_path / "record.json"), tmp_path)
    assert load(tmp_path / "record.json") == before
    assert not list(tmp_path.glob(".*"))


def test_a_crash_while_replacing_one_file_leaves_the_old_one(tmp_path: Path, monkeypatch):
    path = tmp_path / "f"
    write_bytes(path, b"old")

    def crash(*_: object) -> None:
        raise OSError("power")

    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(OSError, match="power"):
        write_bytes(path, b"new")

    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
