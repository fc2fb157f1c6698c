"""advbench in a notebook: what the commands do, as functions that return what they found.

>>> from advbench.api import compare, records
>>> frame = records("leaderboard")  # doctest: +SKIP
>>> board = "leaderboard/records/digits-linf"
>>> compare(f"{board}/pgd-at", f"{board}/fast-at").verdict()  # doctest: +SKIP

Whatever a command would refuse with one line is raised here as `advbench.spec.BadInput`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from torch import nn

from advbench import assess, find, judging, suite
from advbench.collect import collect as measure
from advbench.collectors.base import Collector, Measures
from advbench.compare import comparison, match, read
from advbench.compare.comparison import Comparison
from advbench.observe import EXAMPLES
from advbench.outside import Asked
from advbench.record import Record, Scores, load
from advbench.spec import BadInput
from advbench.threat import Threat
from advbench.until import Until

__all__ = ["BadInput", "Comparison", "Measures", "Record", "collect", "compare", "evaluate", "records", "run"]

Place = str | PathLike[str]


def run(
    *tasks: Place,
    only: str | None = None,
    results: Place = "results",
    data_root: Place = "data",
    device: str = "auto",
    jobs: int | None = None,
) -> pd.DataFrame:
    """Train, attack and record every job of the `tasks`, files or folders of them, as `advbench run`.

    Without any it is the starter suite. Progress is printed. Returns the `records` of `results`; a job that FAILED has
    the status "failed" there. Raises BadInput, also where nothing can run here.
    """
    asked = [Path(task) for task in tasks]
    code = suite.run(asked, [only] if only else [], Path(results), Path(data_root), device, jobs, dry_run=False)
    if code == suite.BAD:
        raise BadInput("nothing to run here; the plan says why")
    return records(results)


def evaluate(
    model: str | nn.Module,
    task: Place,
    *,
    only: str | None = None,
    weights: Place | None = None,
    checkpoint: str | None = None,
    label: str | None = None,
    examples: int | None = None,
    against: Place | None = None,
    margin: float | None = None,
    width: float | None = None,
    results: Place = "results",
    data_root: Place = "data",
    device: str = "auto",
) -> Record:
    """Judge `model` by the data, threat and attacks of a task file, as `advbench evaluate`, and return its record.

    `model` is a word that the command takes, or an nn.Module from pixels (N, C, H, W) in [0, 1] to logits (N, classes),
    which is moved to the device and put into eval mode. With `against` and `margin`, or `width` (all in points), it
    stops as soon as these are decided. A finished evaluation is not done again. Raises BadInput.
    """
    early = (against, margin, width) != (None, None, None)
    other = Path(against) if against is not None else None
    until = Until.of("decided" if early else None, other, margin, width)
    where = judging.Where(Path(results), Path(data_root), device)
    asked = _asked(model, weights, checkpoint)
    return assess.judged(asked, Path(task), only, label, examples, where, _quiet(), until)[0]


def collect(
    model: str | nn.Module,
    task: Place,
    collectors: Sequence[str | dict[str, Any]],
    *,
    only: str | None = None,
    weights: Place | None = None,
    checkpoint: str | None = None,
    examples: int | None = None,
    seed: int = 0,
    data_root: Place = "data",
    device: str = "auto",
) -> dict[str, Measures]:
    """What `collectors` find around `model` on the task's first so many test examples, by the collector's name.

    Where nobody says how many, it is 256, or all that there are.
    A collector is named as `advbench list collectors` does, or by the file of one's own (*.py), or is a table with its
    name or file and its fields. Raises BadInput.
    """
    tables = [one if isinstance(one, dict) else {"file" if one.endswith(".py") else "name": one} for one in collectors]
    made = [find.named(Collector, one) for one in tables]
    where = judging.Where(Path("results"), Path(data_root), device)  # nothing is written there
    ready = judging.ready_for(_asked(model, weights, checkpoint), Path(task), only, None, examples, where, None)
    threat = Threat(ready.job.threat.norm, float(ready.job.threat.eps))
    test = ready.test.some(slice(0, EXAMPLES if examples is None else examples))
    return measure(ready.model.network, test, threat, made, seed=seed)


def compare(a: Place, b: Place) -> Comparison:
    """B beside A, as `advbench compare`: two records, or two defenses with all their seeds.

    The object has a line a quantity (`lines`), the discordant examples (`gained`, `lost`), what it speaks of (`about`)
    and says so in words (`verdict()`). Raises BadInput for what cannot be compared, and where `a` and `b` hold several.
    """
    found = match.pairs(read.read(Path(a)), read.read(Path(b)), a, b)
    if len(found) != 1:
        raise BadInput(f"{a} and {b}: {len(found)} defenses in common; name one on each side")
    [(one, other)] = found
    if not (one.results and other.results):
        raise BadInput(f"{a} and {b}: every job of one side FAILED: nothing to compare")
    return comparison.compare(one, other)


def records(folder: Place) -> pd.DataFrame:
    """A row a record of a defense in a results folder (or of its records/ folder), with flat columns.

    Accuracies are fractions: `clean` and `robust` with `_low` and `_high` (95 %) and `_n`; `after/NAME` after a rung,
    `alone/NAME` under one attack, `curve/EPS` at another radius; `measure/COLLECTOR/NAME` in that measure's unit.
    `train_passes` and `passes` are example passes of the training and the evaluation, forward and backward; `flags` are
    names with commas between. What a record lacks is NaN or None. Raises BadInput.
    """
    place = Path(folder)
    place = place / "records" if (place / "records").is_dir() else place
    files = sorted(place.glob("*/*/record.json"))
    if not files:
        raise BadInput(f"{folder}: holds no record; give a results folder or its records/ folder")
    loaded = ((file, load(file)) for file in files)
    return pd.DataFrame([{"path": str(file.parent), **_row(one)} for file, one in loaded if not one.of_study])


def _row(record: Record) -> dict[str, Any]:
    threat, cost = record.job.get("threat"), record.cost
    threat = threat if isinstance(threat, dict) else {}
    passes = cost.train_forward + cost.train_backward
    return {
        **{name: getattr(record, name) for name in ("task", "label", "defense", "seed", "status", "id", "best_epoch")},
        "norm": threat.get("norm"),
        "eps": threat.get("eps"),
        **(_scores(record.scores) if record.scores else {}),
        # A cost of nought is one that nobody measured, as of a model trained elsewhere.
        "train_passes": passes or None,
        "train_seconds": cost.train_seconds or None,
        "passes": cost.forward + cost.backward or None,
        "seconds": cost.eval_seconds or None,
        "flags": ", ".join(sorted({flag.name for flag in record.flags})),
        **{
            f"measure/{collector}/{name}": found.value
            for collector, values in record.measures.items()
            for name, found in values.items()
        },
    }


def _scores(scores: Scores) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name, accuracy in (("clean", scores.clean), ("robust", scores.robust)):
        if accuracy:
            row |= {name: accuracy.accuracy, f"{name}_low": accuracy.low, f"{name}_high": accuracy.high}
            row |= {f"{name}_n": accuracy.n}
    row["protocol"] = scores.robust.protocol if scores.robust else None
    for name, table in (("after", scores.attacks), ("alone", scores.alone), ("curve", scores.curve)):
        row |= {f"{name}/{key}": value for key, value in table.items()}
    return row | {"distance": scores.distance}


def _asked(model: str | nn.Module, weights: Place | None, checkpoint: str | None) -> Asked | judging.Given:
    if isinstance(model, str):
        return Asked(model, Path(weights) if weights is not None else None, None, checkpoint)
    if weights is not None or checkpoint is not None:
        raise BadInput("weights and checkpoint are of models given by name; a module has its weights")
    return judging.Given(model)


def _quiet() -> Console:
    return Console(file=io.StringIO())
