"""`advbench reproduce`: the job of a record, run again from nothing, and what came out beside what was written.

Equal results are promised for one kind of machine, one build of torch and one number of threads. Elsewhere a rerun is
like another seed, and only intervals can be compared.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from rich.console import Console

from advbench import agenda, find, machine
from advbench.attacks.base import Attack
from advbench.data.base import Missing
from advbench.execute import local
from advbench.execute.lock import locked
from advbench.external import external
from advbench.identity import code
from advbench.plan import EVALUATION_PROTOCOL, PROTOCOL, Item, Job, record_folder, run_folder
from advbench.progress import Show
from advbench.record import Record, load
from advbench.spec import BadInput, complaints, validate
from advbench.stable import stable
from advbench.task import Defended

SHOWN = 10
"""Differences that are printed; one more would explain nothing."""
BUILD = ("machine", "device", "torch", "pyautoattack", "threads")
"""Provenance under which equal results are promised."""
BYSTANDERS = ("advbench", "torchvision", "numpy", "scikit-learn", "python")
"""Versions that are no part of the promise and no part of the result."""


@dataclass(frozen=True)
class Difference:
    """One field that came out otherwise."""

    field: str
    record: Any
    rerun: Any


@dataclass(frozen=True)
class Outcome:
    """What a rerun says about a record."""

    verdict: str
    """EQUAL or DIFFERENT where equality is promised; else CONSISTENT or INCONSISTENT; FAILED when the job did."""
    why_not_promised: tuple[str, ...]
    differences: tuple[Difference, ...]

    @property
    def good(self) -> bool:
        return self.verdict in ("EQUAL", "CONSISTENT")


def reproduce(
    path: Path,
    folder: Path,
    results: Path | None,
    root: Path,
    device: str,
    *,
    as_json: bool,
    minutes: float | None = None,
    memory_gib: float | None = None,
) -> int:
    """Run the job of the record at `path` again and say how it compares; 0 for yes, 1 for no. Raises BadInput.

    `folder` is where the task file lay: a defense file is relative to it. `minutes` and `memory_gib` are limits as a
    task's [resources] has them; a record knows none.
    """
    # With --json the progress goes where it spoils nothing.
    console = Console(highlight=False, markup=False, emoji=False, stderr=as_json, soft_wrap=not sys.stdout.isatty())
    record = _record(path)
    item = _item(path, record, folder, root).model_copy(update={"minutes": minutes, "memory_gib": memory_gib})
    chosen = _devices(device, record, item)
    place = _place(results, item)
    console.print(f"{item.path} again, into {place}", soft_wrap=True)
    with locked(place), Show(console, [item], 1) as show:
        local.run([item], place, root, chosen, show)
    rerun = load(record_folder(place, item.path) / "record.json")
    outcome = compare(record, rerun)
    where = str(record_folder(place, item.path))
    if as_json:
        scores = {name: _scores(one) for name, one in (("record", record), ("rerun", rerun))}
        print(json.dumps({"record": str(path), "rerun": where, **asdict(outcome), "scores": scores}, indent=1))
    else:
        tell(console, outcome, record, rerun)
        console.print(f"rerun: {where}", soft_wrap=True)
    return 0 if outcome.good else 1


def _record(path: Path) -> Record:
    file = path / "record.json" if path.is_dir() else path
    record = load(file)
    if record.of_study:
        raise BadInput(
            f"{path}: is a study's, with nothing to train; run its task file again, with --results elsewhere"
        )
    if external(record.defense, record.job):
        raise BadInput(f"{file}: its model was trained elsewhere; `advbench evaluate` judges it again")
    if record.status != "ok":
        raise BadInput(f"{file}: a FAILED job has no result to reproduce; `advbench run` tries it again")
    protocol = record.job.get("protocol"), record.job.get("evaluation_protocol")
    if protocol != (ours := (PROTOCOL, EVALUATION_PROTOCOL)):
        raise BadInput(
            f"{file}: made under protocols {protocol} of training and evaluation, this advbench has {ours}, which give "
            "other results; "
            f"use advbench {record.provenance.get('advbench', 'of that time')}"
        )
    return record


def _item(path: Path, record: Record, folder: Path, root: Path) -> Item:
    """The very job of the record. Raises BadInput when something that it was made of is not the same here."""
    try:
        job = validate(Job, record.job)
    except ValidationError as error:
        lines = complaints(error, Job, "job")
        raise BadInput(*(f"{path}: not a job of this version of advbench: {line}" for line in lines)) from None
    if any("/" in name or name.startswith(".") for name in (job.task, job.label)):
        raise BadInput(f"{path}: task '{job.task}' and label '{job.label}' would name folders outside the results")
    for what, file, said in _code(job, folder):
        try:
            digest = code(file.read_bytes())
        except OSError as error:
            raise BadInput(
                f"{file}: cannot be read: {error.strerror}; --task-folder says where the task file lay"
            ) from None
        if digest != said:
            raise BadInput(
                f"{file}: not the {what} of the record: its code has the digest {digest[:12]}, not {said[:12]}"
            )
    # All that comes after the training, before it.
    for attack in job.evaluation.attacks:
        find.named(Attack, {"name": attack.name, **attack.fields}, folder)
    find.collectors(job.collect or {}, folder)
    try:
        found = find.read_data(job.data, root).sha256
    except Missing as missing:
        raise BadInput(f"{path}: its data are missing: {missing}") from None
    if found != job.data_sha256:
        what = f"their sha256 is {found[:12]}, not {job.data_sha256[:12]}"
        raise BadInput(f"{path}: the data '{job.data.name}' are not those of the record: {what}")
    cost = record.cost.train_seconds + record.cost.eval_seconds
    return Item(
        task=job.task,
        label=job.label,
        seed=job.seed,
        base=folder,
        job=job,
        seconds=cost,
        processes=find.job_defense(job, folder).workers(),
    )


def _code(job: Job, folder: Path) -> Iterator[tuple[str, Path, str]]:
    """The files with code that the record names: what each is, where it lies here, and its digest there."""
    for table in (job.defense, job.defense.get("base")):
        if isinstance(table, dict) and "sha256" in table:
            entry = Defended(name=None if table["file"] else table["name"], file=table["file"])
            yield "defense", find.defense_file(entry, folder), table["sha256"]
    own = [("attack", attack.fields) for attack in job.evaluation.attacks]
    own += [("collector", fields) for fields in (job.collect or {}).values()]
    for what, fields in own:
        if "file" in fields:
            yield what, folder / fields["file"], fields["sha256"]


def _devices(device: str, record: Record, item: Item) -> list[str]:
    """A device for each process, of the kind that the record was made on where it is here and no other is asked for."""
    assert isinstance(item.job, Job)
    found = machine.accelerators() if device != "cpu" else []
    name = str(record.provenance.get("device", ""))
    if device != "auto":
        chosen = agenda.devices(device, item.processes, [item])
    elif name.startswith("cpu"):
        chosen = ["cpu"]
    else:
        chosen = [one for one in found if machine.device_name(one) == name] or found or ["cpu"]
    if chosen[0] == "cpu":
        if item.job.accelerator:
            raise BadInput(f"{item.path}: needs an accelerator, and there is none")
        return ["cpu"] * item.processes
    chosen = list(dict.fromkeys(chosen))[: item.processes]
    if len(chosen) < item.processes:
        why = f"is shared by {item.processes} processes, each on a device of its own, and there are {len(chosen)}"
        raise BadInput(f"{item.path}: {why}: {', '.join(chosen)}")
    return chosen


def _place(results: Path | None, item: Item) -> Path:
    if results is None:
        return Path(tempfile.mkdtemp(prefix="advbench-"))
    if record_folder(results, item.path).exists() or run_folder(results, item.path).exists():
        raise BadInput(f"{results}: holds {item.path} already; a rerun needs a folder without it: another --results")
    return results


def compare(record: Record, rerun: Record) -> Outcome:
    """The rerun beside the record, outside what no rerun promises."""
    if rerun.status != "ok":
        return Outcome("FAILED", (), (Difference("error", None, rerun.reason),))
    one, other = record.provenance, rerun.provenance
    why = [f"{key} {one.get(key)} there, {other.get(key)} here" for key in BUILD if one.get(key) != other.get(key)]
    if not (one.get("deterministic") and other.get("deterministic")):
        why.append("accelerators sum in any order")
    differences = tuple(_differences(_result(record), _result(rerun)))
    if not why:
        return Outcome("DIFFERENT" if differences else "EQUAL", (), differences)
    return Outcome("CONSISTENT" if _overlap(record, rerun) else "INCONSISTENT", tuple(why), differences)


def _result(record: Record) -> dict[str, Any]:
    """What the job found. The job itself is what both have in common, even where an older record says less of it."""
    kept = {key: value for key, value in stable(record).items() if key not in ("id", "job")}
    kept["provenance"] = {key: value for key, value in kept["provenance"].items() if key not in BYSTANDERS}
    return kept


def _differences(one: Any, other: Any, field: str = "") -> Iterator[Difference]:
    if isinstance(one, dict) and isinstance(other, dict):
        mine, theirs = cast("dict[str, Any]", one), cast("dict[str, Any]", other)
        for key in dict.fromkeys([*mine, *theirs]):
            yield from _differences(mine.get(key), theirs.get(key), f"{field}.{key}".lstrip("."))
    elif (
        isinstance(one, list)
        and isinstance(other, list)
        and len(cast("list[Any]", one)) == len(cast("list[Any]", other))
    ):
        for i, (mine, theirs) in enumerate(zip(cast("list[Any]", one), cast("list[Any]", other), strict=True)):
            yield from _differences(mine, theirs, f"{field}[{i}]")
    elif one != other:
        yield Difference(field, one, other)


def _scores(record: Record) -> dict[str, Any]:
    scores = record.scores
    found = {"clean": scores.clean, "robust": scores.robust} if scores else {}
    return {name: accuracy.plain() for name, accuracy in found.items() if accuracy}


def _overlap(record: Record, rerun: Record) -> bool:
    """Whether the intervals of clean and of robust accuracy meet."""
    one, other = _scores(record), _scores(rerun)
    return one.keys() == other.keys() and all(
        one[name]["low"] <= other[name]["high"] and other[name]["low"] <= one[name]["high"] for name in one
    )


def tell(console: Console, outcome: Outcome, record: Record, rerun: Record) -> None:
    """The outcome for a person."""
    for why in outcome.why_not_promised:
        console.print(f"equality is not promised: {why}", soft_wrap=True)
    if outcome.why_not_promised:
        one, other = _scores(record), _scores(rerun)
        for name in [name for name in one if name in other]:
            change = 100 * (other[name]["accuracy"] - one[name]["accuracy"])
            console.print(f"{name}: {_interval(one[name])} there, {_interval(other[name])} here: {change:+.1f} points")
    else:
        for found in outcome.differences[:SHOWN]:
            console.print(f"{found.field}: {found.record!r} there, {found.rerun!r} here", soft_wrap=True)
        if len(outcome.differences) > SHOWN:
            console.print(f"... and {len(outcome.differences) - SHOWN} fields more")
    console.print(outcome.verdict)


def _interval(accuracy: dict[str, Any]) -> str:
    return f"{accuracy['accuracy']:.1%} ({accuracy['low']:.1%} to {accuracy['high']:.1%})"
