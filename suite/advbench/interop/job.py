"""What a record's job says: JSON of any shape, for a record may come from anywhere."""

from __future__ import annotations

from typing import Any

from advbench.record import Record


def table(record: Record, name: str) -> dict[str, Any]:
    """A table of the job, such as "threat"; empty where there is none."""
    found: Any = record.job.get(name)
    return found if isinstance(found, dict) else {}


def text(record: Record, name: str, field: str) -> str | None:
    """A field of it that is a text, or None."""
    found = table(record, name).get(field)
    return found if isinstance(found, str) else None


def rungs(record: Record) -> list[str]:
    """The attacks of the ladder by their names, in its order."""
    found: Any = table(record, "evaluation").get("attacks")
    attacks = [a for a in found if isinstance(a, dict)] if isinstance(found, list) else []
    return [str(attack.get("label") or attack.get("name")) for attack in attacks]
