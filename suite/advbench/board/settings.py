"""What a task's records were made under, and which of them were not made under the same.

A task file can change between two runs, so records that share a task's name need not share its settings. The board
says so instead of comparing them in silence.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from advbench.external import external
from advbench.record import Record

SHARED = ("data", "model", "threat", "training", "evaluation")
"""The tables of a job that all defenses of a task have in common."""
JUDGED = ("data", "threat", "evaluation")
"""Those that a model has to share which was trained elsewhere."""

HARMLESS = frozenset(
    (
        *("data.path", "training.seeds", "training.checkpoint_minutes", "evaluation.batch"),
        *("defense.file", "defense.name", "defense.base.file", "defense.base.name"),
    )
)
"""Fields that change no result: where files lie, what else is run, how often something is written."""


def usual(records: Sequence[Record]) -> dict[str, Any]:
    """The settings most of a task's `records` have, as `{"threat.eps": "3/20", ...}`."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        changed = _deviating(record)
        for field, value in _shared(record).items():
            # A defense's declared deviation is no vote on what the task says, unless nobody else votes.
            weight = 0 if field in changed else 1
            found.setdefault(field, Counter())[_text(value)] += weight
    return _chosen(found)


def usual_defense(records: Sequence[Record]) -> dict[str, Any]:
    """The defense's fields that most seeds of one label have."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        for field, value in _table(record, "defense").items():
            found.setdefault(field, Counter())[_text(value)] += 1
    return _chosen(found)


def unlike(record: Record, expected: Mapping[str, Any]) -> tuple[str, ...]:
    """Where `record` is not under the `expected` settings and did not declare it: `threat.eps 8/255, not 3/20`."""
    mine = _shared(record) | _table(record, "defense")
    known = [field for field in expected if field not in ("title", *_deviating(record)) and field not in HARMLESS]
    if external(record.defense, record.job):
        # Only what it was judged under can be the task's; what it is made of and was trained by is its own affair.
        known = [f for f in known if f.partition(".")[0] in (*JUDGED, "scores", "data_sha256", "evaluation_protocol")]
    # A failed job has no scores, a stopped evaluation no robust accuracy; that is not another protocol.
    judged = record.scores is not None and record.scores.robust is not None
    scored = known if judged else [field for field in known if not field.startswith("scores.")]
    apart = [field for field in sorted(scored) if _text(mine.get(field)) != _text(expected[field])]
    return tuple("{} {}, not {}".format(field, *_sides(mine.get(field), expected[field])) for field in apart)


def line(usual: Mapping[str, Any]) -> str:
    """`digits · Linf 3/20 · digits-cnn · 30 epochs`, from what is known."""
    epochs = usual.get("training.epochs")
    parts = [
        usual.get("data.name"),
        " ".join(str(usual[key]) for key in ("threat.norm", "threat.eps") if usual.get(key)),
        usual.get("model.name"),
        f"{epochs} epoch{'' if epochs == 1 else 's'}" if epochs is not None else None,
    ]
    return " · ".join(str(part) for part in parts if part)


def protocol(usual: Mapping[str, Any]) -> str:
    """`autoattack on 360 test examples`, or nothing while no record has a score."""
    n, name = usual.get("scores.n"), usual.get("scores.protocol")
    return f"{name or 'attacked'} on {n:,} test examples" if isinstance(n, int) else str(name or "")


def ladder(usual: Mapping[str, Any]) -> list[str]:
    """The attacks' names in the order the task gives them."""
    attacks: Any = usual.get("evaluation.attacks") or []
    return [_called(a) if isinstance(a, dict) else str(a) for a in attacks]  # pyright: ignore[reportUnknownArgumentType]  # JSON of any shape


def said(fields: Mapping[str, Any]) -> str:
    """`epochs 15, lr 0.05`."""
    return ", ".join(f"{field} {_short(value)}" for field, value in sorted(fields.items()))


def _shared(record: Record) -> dict[str, Any]:
    values: dict[str, Any] = {"title": record.job.get("title")}
    for key in ("data_sha256", "protocol", "evaluation_protocol", "threads"):
        if key in record.job:
            values[key] = record.job[key]
    for table in JUDGED if external(record.defense, record.job) else SHARED:
        values |= _table(record, table)
    if record.scores and record.scores.robust:
        values["scores.protocol"] = record.scores.robust.protocol
        values["scores.n"] = record.scores.robust.n
    return values


def _table(record: Record, name: str) -> dict[str, Any]:
    table: Any = record.job.get(name)
    if not isinstance(table, dict):
        return {}
    fields: dict[str, Any] = {f"{name}.{field}": value for field, value in table.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # JSON of any shape
    # A defense around another one: the inner one's fields stand beside its own.
    inner: Any = fields.get("defense.base")
    if isinstance(inner, dict):
        del fields["defense.base"]
        fields |= {f"defense.base.{field}": value for field, value in inner.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return fields


def _deviating(record: Record) -> set[str]:
    fields: Iterable[str] = record.job.get("deviations") or {}
    return {f"training.{field.removeprefix('training.')}" for field in fields}


def _chosen(found: Mapping[str, Counter[str]]) -> dict[str, Any]:
    # Ties go to the smaller text, so that no order of records decides.
    return {field: json.loads(min(votes, key=lambda text: (-votes[text], text))) for field, votes in found.items()}


def _text(value: Any) -> str:
    """As JSON; of ten thousand records most values are the same few."""
    return _scalar(value) if isinstance(value, str | int | float | None) else json.dumps(value, sort_keys=True)


@lru_cache(maxsize=1 << 12, typed=True)
def _scalar(value: str | float | None) -> str:
    return json.dumps(value)


def _sides(one: Any, other: Any) -> tuple[str, str]:
    """What differs, on either side: of two lists of attacks their names, or what those of one name do not share."""
    if not (_parts(one) and _parts(other)):
        return _short(one), _short(other)
    if _names(one) != _names(other):
        return _short(_names(one)), _short(_names(other))
    told: tuple[list[str], list[str]] = [], []
    for a, b in zip(one, other, strict=True):
        for field in sorted({*a, *b}):
            if a.get(field) != b.get(field):
                for said, part in zip(told, (a, b), strict=True):
                    said.append(f"{_called(part)} {field} {_short(part.get(field))}")
    return _short(", ".join(told[0])), _short(", ".join(told[1]))


def _parts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, dict) and "name" in part for part in value)  # pyright: ignore[reportUnknownVariableType]


def _names(parts: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(map(_called, parts)) or "none"


def _called(part: Mapping[str, Any]) -> str:
    return str(part.get("label") or part.get("name"))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else _text(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
