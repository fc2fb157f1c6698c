"""A task as the page's table has it: plain JSON, every number unrounded or at six digits, every text as it came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

from advbench.board.budget import Budget
from advbench.board.rows import Group, Row, radius
from advbench.board.table import Section
from advbench.board.words import certainty, leads

PAIRS = 60
"""Ranked defenses up to which the page lists who is better than whom; beyond, the lists outgrow the table."""


def digits(value: float | None, count: int = 6) -> float | None:
    """A number that JSON holds, at so many digits; None where it is not finite."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{count}g}") if isfinite(value) else None


def table(job: Any, name: str) -> dict[str, Any]:
    """One table of a resolved job; empty where a stranger's job has none."""
    found = job.get(name) if isinstance(job, dict) else None
    return found if isinstance(found, dict) else {}


def task(section: Section) -> dict[str, Any]:
    """What the first view needs of a task."""
    standing = section.standing
    labels = [group.label for group in section.groups]
    marked = [group.label for group in section.groups if group.marked]
    return {
        "task": section.task,
        "title": section.title,
        "setting": section.setting,
        "protocol": section.protocol,
        "eps": section.eps,
        "leads": leads(standing, labels, marked),
        "certainty": certainty(standing),
        "ranked": len(standing.ranks),
        "groups": [_group(group, section) for group in section.groups],
    }


def _group(group: Group, section: Section) -> dict[str, Any]:
    standing, label = section.standing, group.label
    job = group.rows[0].record.job
    epochs = table(job, "training").get("epochs")
    low, high = standing.intervals.get(label) or _own(group)
    found: dict[str, Any] = {
        "label": label,
        "defense": group.rows[0].record.defense,
        "rank": standing.ranks.get(label),
        "unranked": standing.unranked.get(label),
        "robust": digits(group.robust),
        "low": digits(low),
        "high": digits(high),
        "clean": digits(group.clean),
        "seconds": digits(group.train_seconds),
        "passes": digits(group.train_passes),
        "data": _text(table(job, "data").get("name")),
        "threat": " ".join(_text(table(job, "threat").get(k)) for k in ("norm", "eps")).strip(),
        "model": _text(table(job, "model").get("name")),
        "budget": f"{epochs} epochs" if group.trained and epochs is not None else "trained elsewhere",
        "extra": ", ".join(sorted({_text(row.extra_data) for row in group.rows if row.extra_data})),
        "marked": group.marked,
        "flags": group.flags,
        "notes": [[note.kind, note.text] for note in group.notes],
        "seeds": [_seed(row) for row in group.rows],
    }
    if len(standing.ranks) <= PAIRS and label in standing.better:
        found["better"] = standing.better[label]
    return found


def _own(group: Group) -> tuple[float | None, float | None]:
    """The interval of a single score; several without verdicts have none."""
    scored = [row.robust for row in group.rows if row.robust and not row.failed]
    return (scored[0].low, scored[0].high) if len(scored) == 1 and scored[0] else (None, None)


def _seed(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = {
        "seed": row.record.seed,
        "robust": digits(row.robust.accuracy) if row.robust and not row.failed else None,
        "clean": digits(row.clean.accuracy) if row.clean and not row.failed else None,
        "says": row.remark,
    }
    # Absent means no: ten thousand rows say it ten thousand times.
    found |= {"failed": True} if row.failed else {}
    return found | ({"marked": True} if row.marked else {})


def more(section: Section) -> dict[str, Any]:
    """What the charts and the smaller tables of a task need."""
    return {
        "rungs": section.rungs,
        "alone": section.alone,
        "radii": [[eps, float(digits(r) or 0)] for eps, r in _radii(section)],
        "curves": _by_label(section, lambda row: _along(row, section)),
        "costs": _by_label(
            section,
            lambda row: [digits(row.record.cost.train_seconds or None), row.passes or None],
        ),
        "budgets": [_budget(budget) for budget in section.budgets],
        "measures": [
            {
                "collector": m.collector,
                "name": m.name,
                "unit": m.unit,
                "meaning": m.meaning,
                "values": [[digits(v, 4) for v in g.measures(m.collector, m.name)] for g in section.measured],
            }
            for m in section.measures
        ],
        "measured": [group.label for group in section.measured],
    }


def _radii(section: Section) -> Sequence[tuple[str, float]]:
    return [("0", 0.0), *((eps, float(radius(eps))) for eps in section.radii)]


def _along(row: Row, section: Section) -> list[float | None] | None:
    """The row's curve at every radius that the section has, None where it was not measured."""
    points = {eps: value for eps, _, value in row.curve}
    return [digits(points.get(eps), 4) for eps, _ in _radii(section)] if points else None


def _by_label(section: Section, value: Callable[[Row], Any]) -> list[list[Any]]:
    """By group and seed, in the table's order."""
    return [[None if row.failed else value(row) for row in group.rows] for group in section.groups]


def _budget(budget: Budget) -> dict[str, Any]:
    return {
        "kind": budget.kind,
        "amount": digits(budget.amount),
        "places": [
            {
                "label": place.group.label,
                "rank": place.rank,
                "pgd": digits(place.pgd),
                "marked": place.marked,
                "epochs": place.epochs,
                "seeds": [digits(seed.pgd) for seed in place.seeds],
            }
            for place in budget.places
        ],
    }


def _text(value: object) -> str:
    return "" if value is None else str(value)
