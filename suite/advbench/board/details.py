"""A record as the page's own view of it has it: what it says of itself, and what the charts of its task say of it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from advbench.board import defenses
from advbench.board.overview import digits
from advbench.board.rows import Row
from advbench.record import Record, Scores

WORDS = 6_000
"""Characters of a traceback; its end names the error."""


def detail(row: Row, folder: Path) -> dict[str, Any]:
    """What the record in `folder` says of itself, numbers as it has them."""
    record = row.record
    where = "/".join(("records", *folder.parts[-2:]))
    return {
        "id": record.id,
        "defense": record.defense,
        "paper": defenses.paper(record),
        "command": row.command,
        "task_file": row.task_file,
        # Quoted here, because whoever copies it hands it to a shell.
        "again": None if row.elsewhere or row.failed else shlex.join(["advbench", "reproduce", where]),
        "folder": where,
        "elsewhere": row.elsewhere,
        "unlike": list(row.unlike),
        "error": (record.error or "no traceback was kept")[-WORDS:] if row.failed else None,
        "scores": _scores(record.scores) if record.scores else None,
        "checkpoints": {name: _scores(kept) for name, kept in sorted(record.checkpoints.items())},
        "best": record.best_epoch,
        "cost": record.cost.plain(),
        "remarks": {name: list(notes) for name, notes in sorted(record.measure_notes.items())},
        "job": _ordered(record.job),
        "provenance": _ordered(record.provenance),
        "files": dict(sorted(record.files.items())),
    }


def course(row: Row, words: dict[tuple[str, str], int]) -> dict[str, Any]:
    """How its training went and what was measured on it: what the charts of its task draw of each record.

    A measure is its value and the number of its unit and meaning in `words`, which grows by those not met before: all
    records of a task say the same words.
    """
    record = row.record
    return {
        "flags": [{"name": f.name, "message": f.message, "evidence": f.evidence} for f in record.flags],
        "measures": {
            collector: {
                name: [digits(found.value, 5), words.setdefault((found.unit, found.meaning), len(words))]
                for name, found in sorted(values.items())
            }
            for collector, values in sorted(record.measures.items())
        },
        "history": _history(record),
    }


def _scores(scores: Scores) -> dict[str, Any]:
    plain = scores.plain()
    return {name: _ordered(value) for name, value in plain.items() if value not in (None, {}, ())}


def _history(record: Record) -> dict[str, list[Any]] | None:
    """By quantity, a number an epoch."""
    if not record.history:
        return None
    columns = ("epoch", "loss", "clean", "fgsm", "pgd", "top_class", "eps", "lr", "seconds")
    found = {name: [digits(getattr(line, name), 4) for line in record.history] for name in columns}
    found["passes"] = [line.forward + line.backward for line in record.history]
    # What collectors said in passing, where the records have it.
    said = [getattr(line, "measures", None) or {} for line in record.history]
    names = sorted({(c, name) for line in said for c, values in line.items() for name in values})
    for collector, name in names:
        found[f"{collector} {name}"] = [digits(line.get(collector, {}).get(name), 4) for line in said]
    return found


def _ordered(value: Any) -> Any:
    """JSON in an order of its own, so that equal records give equal bytes."""
    if isinstance(value, dict):
        return {str(name): _ordered(value[name]) for name in sorted(value, key=str)}
    return [_ordered(inner) for inner in value] if isinstance(value, list | tuple) else value
