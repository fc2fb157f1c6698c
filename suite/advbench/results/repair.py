"""Before a run: records that are damaged, which is said, and set aside or made again."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from advbench.index import Index
from advbench.plan import Item, record_folder
from advbench.record import load
from advbench.results.clean import DAMAGED
from advbench.seal import unbroken
from advbench.spec import BadInput


def unreadable(results: Path, planned: Collection[str]) -> list[Path]:
    """The records that are no longer JSON, or no record: what is `planned` is made again.

    Raises BadInput for those of other tasks, and for whole ones that this version does not read.
    """
    found: list[Path] = []
    for file in sorted((results / "records").glob("*/*/record.json")):
        try:
            load(file)
        except BadInput as error:
            if f"{file.parent.parent.name}/{file.parent.name}" not in planned or not _damaged(file):
                raise BadInput(*(f"{line}; `advbench results verify {results}`" for line in error.lines)) from None
            found.append(file)
    return found


def aside(files: Sequence[Path]) -> list[str]:
    """Give damaged records another name, for a board cannot be built over them; a line for each."""
    still = [file for file in files if file.exists() and _damaged(file)]  # another run may have been faster
    for file in still:
        file.replace(file.with_name(DAMAGED))
    return [f"{file}: was damaged and is made again; kept as {DAMAGED}" for file in still]


def broken(results: Path, index: Index, items: Sequence[Item]) -> list[str]:
    """A line for each record that is not what was written, or whose files are not; other tasks' too."""
    run = {item.path for item in items if item.state == "run"}
    again = {True: "made again", False: "its task makes it again"}
    return [
        f"{record_folder(results, path)}: is not what was written; {again[path in run]}"
        for path, entry in index.all()
        if not entry.whole
    ]


def _damaged(file: Path) -> bool:
    try:
        raw = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return not isinstance(raw, dict) or unbroken(raw) is False
