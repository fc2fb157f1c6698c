"""Files that are whole or absent: each is written under a temporary name, flushed and renamed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from advbench.spec import BadInput

TEMPORARY = ".*.tmp"
"""What `write_bytes` calls a file until it is whole: .NAME.PID.tmp"""
FULL = (errno.ENOSPC, errno.EDQUOT)


class Unwritable(BadInput, OSError):
    """A file cannot be written: the disk is full, or read only. No job's fault, so none is called FAILED for it."""

    def __init__(self, path: Path, error: OSError) -> None:
        why = error.strerror or str(error)
        super().__init__(
            f"{path}: cannot be written: {why}; make room there or give another folder: what was done is kept, and the "
            "same command goes on"
        )
        self.errno, self.strerror = error.errno, why

    def __str__(self) -> str:
        return "\n".join(self.lines)


def write_bytes(path: Path, content: bytes, aside: Path | None = None) -> None:
    """Replace `path` in one step: a reader sees the old file or the new one, after a crash too.

    The old one is kept as `aside`, where that is given; a crash may then leave that alone. Raises Unwritable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        _flushed(temporary, content)
        if aside and path.exists():
            path.replace(aside)
        temporary.replace(path)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError):
            raise Unwritable(path, error) from error
        raise


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Replace files that belong together, in this order: where one has no room, none is replaced. Raises Unwritable."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    path = Path()
    try:
        for path, content in contents.items():
            _flushed(temporary[path], content)
        for path in contents:
            temporary[path].replace(path)
    except BaseException as error:
        for left in temporary.values():
            _remove(left)
        if isinstance(error, OSError):
            raise Unwritable(path, error) from error
        raise


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON, atomically. NaN is refused: it is not JSON."""
    write_bytes(path, as_json(value))


def as_json(value: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def sweep(results: Path) -> None:
    """Remove what killed processes left of `write_bytes` in a results folder whose lock is held."""
    sweep_temporary(temporaries(results))


def temporaries(results: Path) -> list[Path]:
    """What may have been left there."""
    # Not everything below: the folder may be a whole project, of which records/, runs/ and the pages are ours.
    found = [path for name in ("records", "runs", "measures") for path in (results / name).rglob(TEMPORARY)]
    return [*found, *results.glob(TEMPORARY)]


def sweep_temporary(found: Iterable[Path]) -> None:
    """Remove those of `found` (.NAME.PID.tmp, files or folders) whose process has gone."""
    for path in found:
        if left_behind(path):
            if path.is_dir():  # a merge that was killed
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def left_behind(path: Path) -> bool:
    """Whether `path` (.NAME.PID.tmp) is of a process that has gone."""
    _, _, pid = path.stem.rpartition(".")
    # A living one is `advbench board`, which needs no lock, or a worker that ends with its killed driver.
    return pid.isdigit() and not alive(int(pid))


def alive(pid: int) -> bool:
    """Whether this machine has such a process; one that has ended is gone, though nobody may have asked after it."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # someone else's
        return True
    return _stat(pid)[:1] != ["Z"]


def started(pid: int) -> str | None:
    """When a process began, in ticks since its machine did: its number alone may have been given again."""
    return next(iter(_stat(pid)[19:20]), None)


def _stat(pid: int) -> list[str]:
    """What Linux says of a process, its state first; nothing elsewhere, or where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _flushed(temporary: Path, content: bytes) -> None:
    temporary.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:  # a folder that was never made, or that has become read only
        return
