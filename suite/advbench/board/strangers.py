"""A record from anywhere, and what has to be where in its job before a page is made of it.

A job is kept as the JSON that it came as, and any of it may be missing. What is there has the shape that a run gives,
which is asked for once, here, so that nothing else of the board has to.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advbench.external import external
from advbench.record import Record, load
from advbench.spec import BadInput

MOST = 10**18
"""Of anything that is counted: passes, seconds, bytes."""
TABLES = ("data", "model", "threat", "training", "evaluation", "defense", "deviations", "until")
"""Of a job, where it has them."""


def read(path: Path) -> Record:
    """A record that a board can show and whose costs it can sum. Raises BadInput."""
    record = load(path)
    counts = [value for value in record.cost.plain().values() if value is not None]
    counts += [count for epoch in record.history for count in (epoch.forward, epoch.backward)]
    if any(abs(count) > MOST for count in counts):
        raise BadInput(f"{path}: a cost beyond {MOST:.0e}; correct it, or remove the record")
    if wrong := list(_misshapen(record)):
        raise BadInput(*(f"{path}: {line}" for line in wrong))
    return record


def _misshapen(record: Record) -> Iterator[str]:
    """A line for each field of another shape."""
    job = record.job
    wrong = [name for name in TABLES if not isinstance(job.get(name) or {}, dict)]
    yield from (f"job.{name}: should be a table" for name in wrong)
    if wrong:
        return
    model, evaluation, until = (job.get(name) or {} for name in ("model", "evaluation", "until"))
    attacks: Any = evaluation.get("attacks") or []
    if not isinstance(attacks, list) or not all(isinstance(attack, dict | str) for attack in attacks):
        yield "job.evaluation.attacks: should be a list of tables"
    if not isinstance(model.get("extra_data"), str | None):
        yield "job.model.extra_data: should be a text"
    yield from (
        f"job.until.{name}: should be a number"
        for name in ("margin", "width")
        if not isinstance(until.get(name), int | float | None)
    )
    if not isinstance(record.provenance.get("until") or {}, dict):
        yield "provenance.until: should be a table"
    if external(record.defense, job) and not record.of_study and not (model.get("name") and evaluation):
        yield "job: of a model that was trained elsewhere; should have model.name and an evaluation"
