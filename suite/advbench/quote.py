"""`advbench validate`: whether task files are right, how many jobs they mean and what these may cost here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from advbench import agenda
from advbench.index import Index
from advbench.plan import Item
from advbench.progress import LINES, basis, span, wall


def validate(paths: Sequence[Path], results: Path, root: Path, device: str, jobs: int | None, *, as_json: bool) -> None:
    """Print what `quote` finds, as a table or as JSON and nothing else. Raises BadInput as `run` does."""
    found = quote(paths, results, root, device, jobs)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    console = Console(markup=False, emoji=False, highlight=False)
    kinds = [kind for file in found["files"] for kind in file["kinds"]]
    table = Table()
    for column in ("task", "defense", "jobs", "each", "estimate"):
        table.add_column(column, justify="right" if column in ("jobs", "each") else "left", overflow="fold")
    for kind in kinds[:LINES]:
        each = "" if kind["skip"] else span(kind["seconds"])
        table.add_row(kind["task"], kind["label"], str(kind["jobs"]), each, kind["basis"])
    console.print(table)
    if len(kinds) > LINES:
        console.print(f"... and {len(kinds) - LINES} lines more")
    for task, reason in dict.fromkeys((kind["task"], kind["skip"]) for kind in kinds if kind["skip"]):
        console.print(f"{task} would be skipped: {reason}", soft_wrap=True)
    for file in found["files"]:
        console.print(f"{file['path']}: {_words(file, found['workers'])}", soft_wrap=True)
    if len(found["files"]) > 1:
        console.print(f"together: {_words(found, found['workers'])}", soft_wrap=True)


def quote(paths: Sequence[Path], results: Path, root: Path, device: str, jobs: int | None) -> dict[str, Any]:
    """Jobs and seconds of each file, as if nothing were done yet; nothing is written. Raises BadInput."""
    index = Index(results)
    files = agenda.files(paths)
    lines, _ = agenda.lines(files, [], results, root, index, device)
    items = agenda.states(lines, results, index, device, again=True)
    workers = len(agenda.devices(device, jobs, items))
    about: list[dict[str, Any]] = []
    for file in files:
        mine = [item for item in items if item.task == file.stem or item.task.startswith(f"{file.stem}@")]
        about.append({"path": str(file), **_sum(mine, workers), "kinds": _kinds(mine)})
    return {"workers": workers, **_sum(items, workers), "files": about}


def _sum(items: Sequence[Item], workers: int) -> dict[str, Any]:
    todo = [item for item in items if item.state == "run"]
    return {
        "jobs": len(items),
        "skipped": len(items) - len(todo),
        "seconds": round(sum(item.seconds for item in todo), 3),
        "wall_seconds": round(wall(todo, workers), 3),
    }


def _kinds(items: Sequence[Item]) -> list[dict[str, Any]]:
    """A row for each defense of each task: its seeds are one kind of job."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.task, item.label), []).append(item)
    return [
        {
            "task": task,
            "label": label,
            "jobs": len(members),
            "seconds": round(members[0].seconds, 3),
            "records": members[0].records,
            "basis": "skipped" if members[0].skip else basis(members[:1]),
            "skip": members[0].skip,
        }
        for (task, label), members in groups.items()
    ]


def _words(found: dict[str, Any], workers: int) -> str:
    count, skipped = found["jobs"], f", {found['skipped']} to be skipped" if found["skipped"] else ""
    time = f"about {span(found['wall_seconds'])} with {workers} worker{'s' if workers > 1 else ''}"
    return f"{count} job{'' if count == 1 else 's'}{skipped}, {time}"
