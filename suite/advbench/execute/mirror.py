"""A job's files on a node that does not see the driver's results folder, and how they get home.

What has changed since the last look is sent, a checkpoint whole, a log by its end. A look every `PAUSE` seconds makes
that linear in the time that a job takes: a block of the journal that is finished does not change any more.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path

from advbench.execute.wire import Piece
from advbench.files import Unwritable, write_bytes
from advbench.plan import record_folder, run_folder
from advbench.seal import previous

PAUSE = 5.0
"""Seconds between two looks, or more: sending takes at most a tenth of the time."""
LOG = "log.txt"
LEFT_OUT = ("lock",)


class Mirror:
    """The run folder of one job below `results`; what lies there at the start is known at home."""

    def __init__(self, results: Path, path: str) -> None:
        self.results, self.folder = results, run_folder(results, path)
        self.known = {file: _stat(file) for file in _files(self.folder)}
        self.due = time.monotonic() + PAUSE

    def changed(self) -> Generator[Piece]:
        """A piece for each file that has changed."""
        started = time.monotonic()
        for file in _files(self.folder):
            # Where the old one has just been moved aside, the next look has the new one.
            with suppress(FileNotFoundError):
                if piece := self._piece(file):
                    yield piece
        now_ = time.monotonic()
        self.due = now_ + max(PAUSE, 10 * (now_ - started))

    def _piece(self, file: Path) -> Piece | None:
        before, now = self.known.get(file, (0, 0)), _stat(file)
        if before == now:
            return None
        grows = file.name == LOG
        with file.open("rb") as open_:
            open_.seek(before[1] if grows else 0)
            content = open_.read()
        self.known[file] = (now[0], before[1] + len(content)) if grows else now
        return Piece(file.relative_to(self.results).as_posix(), content, grows)


def take(results: Path, piece: Piece) -> None:
    """Write a piece where it belongs at home. Raises Unwritable."""
    path = results / piece.path
    if not piece.grows:
        write_bytes(path, piece.content, previous(path) if path.suffix == ".pt" else None)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(piece.content)
    except OSError as error:
        raise Unwritable(path, error) from error


def kept(results: Path, path: str) -> dict[str, bytes]:
    """What is at home of a job that another node may go on with, by its path in the results folder."""
    found = [*_files(run_folder(results, path)), *_files(record_folder(results, path))]
    return {file.relative_to(results).as_posix(): file.read_bytes() for file in found if file.name != LOG}


def lay(results: Path, contents: Mapping[str, bytes]) -> None:
    """Write on a node what was `kept` at home."""
    for name, content in contents.items():
        write_bytes(results / name, content)


def _files(folder: Path) -> list[Path]:
    """Not what is temporary, a lock, or the predecessor of a checkpoint, which `take` makes at home.

    The log is the first: a node may be lost at any moment, and what a checkpoint at home has behind it, the log tells.
    """
    found = (
        file
        for file in folder.rglob("*")
        if file.is_file()
        and not file.name.startswith(".")
        and file.name not in LEFT_OUT
        and not file.stem.endswith(".previous")
    )
    return sorted(found, key=lambda file: (file.name != LOG, file))


def _stat(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_size
