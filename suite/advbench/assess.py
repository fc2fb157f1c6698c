"""`advbench evaluate`: a model that was trained elsewhere, judged as a task judges its own."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from advbench import agenda, board, find, flags, leave
from advbench.data.base import Examples, Missing
from advbench.data.subsets import choose
from advbench.execute.local import Event
from advbench.execute.lock import locked
from advbench.external import EXTERNAL, External, external, identity
from advbench.outside import Asked, Outside, load
from advbench.plan import EVALUATION_PROTOCOL, Item, record_folder, run_folder
from advbench.prepare import set_up
from advbench.progress import Show
from advbench.record import Accuracy, Cost, Record, load_all, save, sweep, whole
from advbench.record import load as load_record
from advbench.resolve import evaluated, part_errors, undefined
from advbench.scores import Verdicts
from advbench.spec import BadInput
from advbench.sweeps import expand
from advbench.task import Task, check, files, read
from advbench.until import Rule, Tell, Until, Watch, climb_until, ruled
from advbench.verdicts import climb, ladder

PROBE = 2
"""Test images that are tried before the evaluation."""


@dataclass(frozen=True)
class Where:
    """The folders and the device of an evaluation."""

    results: Path
    root: Path
    device: str


@dataclass(frozen=True)
class _Ready:
    """A job, and what it takes to do it."""

    job: External
    model: Outside
    test: Examples
    classes: int
    rule: Rule | None = None
    """When to stop, where not at the end."""


def assess(
    asked: Asked,
    path: Path,
    only: str | None,
    label: str | None,
    examples: int | None,
    where: Where,
    *,
    as_json: bool,
    until: Until | None = None,
) -> None:
    """Evaluate the model by the task file at `path`, unless that is done, and print the outcome. Raises BadInput.

    An evaluation that was stopped goes on where it stopped.
    """
    # A stranger's file may print, and with --json nothing else may stand on stdout.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
        console.print(f"{asked.word}: loading", soft_wrap=True)
        ready = _ready(asked, path, only, label, examples, where, until)
        for line in ready.model.said:
            console.print(line, soft_wrap=True)
        record, cached = _done(ready, where.results), True
        if record is None:
            board.refuse_to_overwrite(where.results / "README.md")
            list(load_all(where.results / "records"))  # one that the board cannot read is told before the work
            with locked(where.results):
                sweep(where.results)
                record, cached = _judged(ready, where, console), False
                board.build(where.results)
    file = record_folder(where.results, ready.job.path) / "record.json"
    if as_json:
        print(json.dumps({"path": str(file), "cached": cached, **record.plain()}, indent=1))
    else:
        _tell(console, record, file, cached=cached)


def judging(path: Path, only: str | None) -> tuple[str, Task, list[str]]:
    """A task's name, what it says, and the labels of its own defenses; its training is not looked at.

    `only` is a glob that names one of a sweep's tasks. Raises BadInput with all that is wrong.
    """
    if files([path]) != [path]:
        raise BadInput(f"--task {path}: is a folder; give one of its task files")
    said = read(path)
    raw = said | {"training": {"epochs": 1}, "defense": [{"name": "standard"}]}
    variants, errors = expand(path.stem, raw)
    chosen = [variant for variant in variants if only is None or fnmatchcase(variant.name, only)]
    if not errors and len(chosen) != 1:
        why = f"--only {only!r} matches {len(chosen)} of its tasks" if only else f"means {len(variants)} tasks"
        raise BadInput(f"{path}: {why}; choose one with --only: {', '.join(v.name for v in variants)}")
    tasks: list[tuple[str, Task]] = []
    for variant in chosen:
        task, wrong = check(variant.raw)
        wrong += part_errors({key: variant.raw[key] for key in ("data", "evaluation") if key in raw}, path.parent)
        errors += variant.told(wrong)
        tasks += [(variant.name, task)] if task else []
    if errors:
        raise BadInput(*dict.fromkeys(f"{path}: {line}" for line in errors))
    defenses: Any = said.get("defense")
    own = [entry for entry in defenses if isinstance(entry, dict)] if isinstance(defenses, list) else []  # pyright: ignore[reportUnknownVariableType]
    return *tasks[0], [str(entry.get("label") or entry.get("name")) for entry in own]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _ready(
    asked: Asked,
    path: Path,
    only: str | None,
    label: str | None,
    examples: int | None,
    where: Where,
    until: Until | None,
) -> _Ready:
    if until and examples is not None:
        raise BadInput("--examples and --until: give one of them; the one is how many, the other until when")
    name, task, labels = judging(path, only)
    if label is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", label):
        raise BadInput(f"--label {label!r}: names folders: use letters, digits and . _ -")
    device = torch.device(agenda.devices(where.device, 1, [Item(task=name, label="", seed=0, base=path.parent)])[0])
    if task.resources.accelerator and device.type == "cpu" and where.device != "cpu":
        raise BadInput(f"{path}: needs an accelerator, and there is none; --device cpu evaluates here all the same")
    try:
        dataset = find.read_data(task.data, where.root)
    except Missing as missing:
        raise BadInput(f"{path}: {missing}") from None
    try:
        evaluation, attacks = evaluated(task, where.root, dataset)
        test = choose(dataset, task.data, device).test
    except BadInput as error:
        raise BadInput(*(f"{path}: {line}" for line in error.lines)) from None
    if unfit := undefined(task, attacks):
        raise BadInput(f"{path}: {'; '.join(unfit)}")
    if examples is not None and examples > len(test):
        raise BadInput(f"--examples {examples}: the task has {len(test)} test examples")
    set_up(task.resources.threads, device)
    model = load(asked, task, test.pixels(slice(0, PROBE)), dataset.classes)
    set_up(task.resources.threads, device)  # a stranger's file may have switched something
    job = External(
        task=name,
        title=task.title,
        label=label or model.label,
        data=task.data,
        data_sha256=dataset.sha256,
        model=model.about,
        threat=task.threat,
        evaluation=evaluation,
        examples=None if examples == len(test) else examples,
        threads=task.resources.threads,
        evaluation_protocol=EVALUATION_PROTOCOL,
    )
    if job.label in labels:
        raise BadInput(f"--label {job.label}: is a defense of {path}; give the model a --label of its own")
    rule = ruled(until, job, test) if until else None
    job = job.model_copy(update={"until": rule.plain}) if rule else job
    return _Ready(job, model, picked(test, slice(0, examples)), dataset.classes, rule)


def picked(test: Examples, rows: slice | Tensor) -> Examples:
    """Some of them, in the order of `rows`."""
    # Streamed images stay where they are; only the places among them are fewer.
    kept = {"stored": test.stored[rows]} if test.places is None else {"places": test.places[rows]}
    return replace(test, labels=test.labels[rows], index=test.index[rows], **kept)


def _done(ready: _Ready, results: Path) -> Record | None:
    """The record of this very evaluation. Raises BadInput where the folder holds that of another model."""
    folder = record_folder(results, ready.job.path)
    if not (folder / "record.json").exists():
        return None
    record = load_record(folder / "record.json")
    if not external(record.defense, record.job):
        raise BadInput(f"{folder}: is the record of a training; give the model another --label")
    old, new = identity(record.job["model"]), identity(ready.job.model)
    if old != new:
        key = next(key for key in {**new, **old} if old.get(key) != new.get(key))
        raise BadInput(
            f"{folder}: is the record of another model ({key} {_short(old.get(key))}, not {_short(new.get(key))}); give"
            " this one another --label, or remove that folder"
        )
    return record if record.id == ready.job.id and record.status == "ok" and whole(record, folder) else None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text[:60]


def _judged(ready: _Ready, where: Where, console: Console) -> Record:
    """Evaluate, and write the record down."""
    job, item = ready.job, Item(task=ready.job.task, label=ready.job.label, seed=0, base=Path())
    started = time.monotonic()
    with Show(console, [item], 1) as show:
        show(Event(item, "start"))

        def tell(stage: str, done: int, total: int, words: str) -> None:
            show(Event(item, stage, done, total, words, time.monotonic() - started))

        judged, watch = _attacked(ready, where.root, run_folder(where.results, job.path) / "journal" / job.id, tell)
        robust = judged.scores.robust
        words = f"clean {judged.scores.clean.accuracy:.1%}" + (f", robust {robust.accuracy:.1%}" if robust else "")
        show(Event(item, "ok", words=words, seconds=time.monotonic() - started))
    device = ready.test.device
    sha256 = job.model.get("weights_sha256")
    record = Record(
        id=job.id,
        task=job.task,
        defense=EXTERNAL,
        label=job.label,
        seed=job.seed,
        status="ok",
        job=job.plain(),
        scores=judged.scores,
        cost=Cost(
            eval_seconds=round(judged.ledger.seconds, 3),
            forward=int(judged.ledger.forward.sum()),
            backward=int(judged.ledger.backward.sum()),
            peak_memory_bytes=leave.memory(device),
        ),
        flags=tuple(flags.of_evaluation(judged)),
        provenance=leave.provenance(device, {EXTERNAL: sha256} if sha256 else {}, ready.test.stored.dtype)
        | ready.model.versions
        | {"evaluation": judged.passes}
        | ({"until": watch.plain()} if watch else {}),
    )
    beside = {"examples.parquet": leave.examples(judged), "adversarial.safetensors": leave.adversarial(judged)}
    return save(record, record_folder(where.results, job.path), beside)


def _attacked(ready: _Ready, root: Path, journal: Path, tell: Tell) -> tuple[Verdicts, Watch | None]:
    job, how, test = ready.job, ready.job.evaluation, ready.test
    try:
        if ready.rule:
            return climb_until(ready.rule, job, ready.model, test, ready.classes, root, journal, tell, picked)
        attacks = ladder(how, root, test, ready.classes)
        return climb(job, ready.model.network, job.id, test, attacks, how, ready.classes, journal, tell), None
    except BadInput:
        raise
    except Exception as error:  # a stranger's network may raise at any batch
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BadInput(
            f"{job.model['name']}: stopped in the evaluation: {said}; what was done is kept, --debug shows where it was"
        ) from error


def _tell(console: Console, record: Record, file: Path, *, cached: bool) -> None:
    scores = record.scores
    assert scores is not None
    console.print(f"{record.task}/{record.label}{': evaluated before' if cached else ''}", soft_wrap=True)
    console.print(f"clean  {_interval(scores.clean)}")
    if scores.robust:
        how = f"{scores.robust.protocol} on {scores.robust.n:,} test examples"
        console.print(f"robust {_interval(scores.robust)}, {how}", soft_wrap=True)
    if told := record.provenance.get("until"):
        console.print(f"stopped after {told['examples']:,} of {told['of']:,}: {told['stopped']}", soft_wrap=True)
        for name in ("robust", "difference"):
            if name in told:
                low, high = (100 * bound for bound in told[name])
                console.print(f"{name} on all of them: {low:.2f} to {high:.2f} points, with 95 % confidence")
    for flag in record.flags:
        console.print(f"{flag.name}: {flag.message}", soft_wrap=True)
    console.print(f"record: {file}", soft_wrap=True)
    console.print(f"board: {file.parents[3] / 'index.html'}", soft_wrap=True)


def _interval(accuracy: Accuracy) -> str:
    return f"{accuracy.accuracy:.1%} ({accuracy.low:.1%} to {accuracy.high:.1%})"
