"""Records of experiments -> one Studied each: its claims judged over its seeds, and its curves."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from advbench.board.beside import Folders, Lost, key, tensors
from advbench.board.overview import digits
from advbench.findings import Findings
from advbench.record import MEASURES, Record
from advbench.stats.claims import Judged, judged

POINTS = 400
"""Of a curve that the page shows."""


@dataclass(frozen=True)
class Studied:
    """One study of one task file."""

    task: str
    title: str
    label: str
    findings: Findings | None
    """Of its first finished seed; None where none has."""
    judged: tuple[Judged, ...]
    seeds: tuple[int, ...]
    """Those that ended."""
    failed: tuple[Record, ...]
    notes: tuple[str, ...]
    """What any seed had to say, once."""
    curves: dict[str, Any] | None
    """`x`, and by line its mean, lowest and highest over seeds; None where there are none."""


def studies(records: Iterable[Record], folders: Folders | None = None) -> list[Studied]:
    """The studies among `records`, by task and label; curves where their `folders` are known."""
    found = sorted((r for r in records if r.of_study), key=lambda r: (r.task, r.label, r.seed))
    return [_studied(list(seeds), folders or {}) for _, seeds in groupby(found, key=lambda r: (r.task, r.label))]


def _studied(seeds: list[Record], folders: Folders) -> Studied:
    ended = [record for record in seeds if record.findings]
    first = ended[0].findings if ended else None
    claims: list[Judged] = []
    for claim in first.claims if first else ():
        # Another version of a study may have claimed something else; only what was claimed alike is judged together.
        said = [c for r in ended if r.findings for c in r.findings.claims]
        alike = [
            c.found for c in said if c.model_copy(update={"found": None}) == claim.model_copy(update={"found": None})
        ]
        claims.append(judged(claim, alike))
    return Studied(
        task=seeds[0].task,
        title=str(seeds[0].job.get("title") or seeds[0].task),
        label=seeds[0].label,
        findings=first,
        judged=tuple(claims),
        seeds=tuple(record.seed for record in ended),
        failed=tuple(record for record in seeds if not record.findings),
        notes=tuple(dict.fromkeys(note for r in seeds for notes in r.measure_notes.values() for note in notes)),
        curves=_curves(ended, folders),
    )


def _curves(ended: list[Record], folders: Folders) -> dict[str, Any] | None:
    """Over the seeds whose curves can be read and have the same x."""
    read: list[dict[str, Any]] = []
    for record in ended:
        if MEASURES not in record.files or key(record) not in folders:
            continue
        try:
            raw = tensors(folders[key(record)], record, MEASURES)
        except Lost:
            continue
        read.append({name.partition("/")[2]: value.astype(float) for name, value in raw.items() if value.ndim == 1})
    x = read[0].get("x") if read else None
    if x is None or not len(x) or len(x) > POINTS:
        return None
    same = [one for one in read if one.get("x") is not None and np.array_equal(one["x"], x)]
    lines: dict[str, Any] = {}
    for name in sorted({name for one in same for name in one} - {"x"}, key=_natural):
        values = np.array([one[name] for one in same if name in one and one[name].shape == x.shape])
        if len(values):
            shown = (values.mean(0), values.min(0), values.max(0))
            lines[name] = [[digits(float(value), 4) for value in line] for line in shown]
    return {"x": [digits(float(value), 6) for value in x], "lines": lines, "seeds": len(same)} if lines else None


def _natural(name: str) -> list[str | int]:
    """Sorts "8 units" before "32 units"."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def plain(studied: Studied) -> dict[str, Any]:
    """It as JSON, for board.json and the page."""
    findings = studied.findings
    return {
        "task": studied.task,
        "title": studied.title,
        "study": studied.label,
        "about": findings.about if findings else None,
        "paper": findings.paper if findings else None,
        "seeds": list(studied.seeds),
        "failed": [{"seed": record.seed, "error": record.reason} for record in studied.failed],
        "claims": [_claim(one) for one in studied.judged],
        "notes": list(studied.notes),
        "plot": findings.plot.plain() if findings else None,
        "curves": studied.curves,
    }


def _claim(one: Judged) -> dict[str, Any]:
    said = {name: value for name, value in one.claim.plain().items() if name != "found"}
    found = {"found": digits(one.found), "low": digits(one.low), "high": digits(one.high), "verdict": one.verdict}
    return said | found | {"numbers": [digits(number) for number in one.numbers]}


def number(value: float | None) -> str:
    """Three digits of any size."""
    return "\N{EN DASH}" if value is None else f"{value:.3g}"


def required(one: Judged) -> str:
    """at least 2, in every seed."""
    each = ", in every seed" if one.claim.over == "every seed" else ""
    # As it was written down: 1.001 is not 1.
    return f"{one.claim.sense} {one.claim.required:g}{each}"


def interval(one: Judged) -> str:
    """Of a mean the 95 % interval, of the worst seed the range."""
    return "\N{EN DASH}" if one.low is None else f"{number(one.low)} to {number(one.high)}"
