"""`advbench evaluate`: a model that was trained elsewhere, judged as a task judges its own."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from advbench import agenda, board, flags, leave
from advbench.execute.guard import Guard
from advbench.execute.hands import Hands
from advbench.execute.local import Event
from advbench.execute.lock import locked
from advbench.execute.spread import Spread
from advbench.external import EXTERNAL, external, identity
from advbench.files import sweep
from advbench.judging import Given, Ready, Where, ready_for
from advbench.outside import Asked
from advbench.plan import Item, record_folder, run_folder
from advbench.progress import Show
from advbench.record import Accuracy, Cost, Record, load_all, save, whole
from advbench.record import load as load_record
from advbench.scores import Verdicts
from advbench.spec import BadInput
from advbench.until import Tell, Until, Watch, climb_until
from advbench.verdicts import climb, ladder


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
    stop: bool = True,
    jobs: int | None = None,
) -> None:
    """Evaluate the model by the task file at `path`, unless that is done, and print the outcome. Raises BadInput.

    An evaluation that was interrupted goes on there. Without `stop` it climbs the whole ladder even where the cheap
    rungs show a masked gradient. A long one is shared by `jobs` processes, by default one a device.
    """
    # A stranger's file may print, and with --json nothing else may stand on stdout.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
        told = (asked, path, only, label, examples, where)
        record, file, cached = judged(*told, console, until, stop=stop, jobs=jobs, held=True)
    if as_json:
        print(json.dumps({"path": str(file), "cached": cached, **record.plain()}, indent=1))
    else:
        _tell(console, record, file, cached=cached)


def judged(
    asked: Asked | Given,
    path: Path,
    only: str | None,
    label: str | None,
    examples: int | None,
    where: Where,
    console: Console,
    until: Until | None = None,
    *,
    stop: bool = True,
    jobs: int | None = 1,
    held: bool = False,
) -> tuple[Record, Path, bool]:
    """The record of the evaluation, its file, and whether it was there already. Raises BadInput.

    A module that is `Given` is here alone, and so is evaluated by this process alone. One that is `held` to the task's
    limits is ended where it takes more: a person's notebook should not be.
    """
    console.print(f"{asked.word}: loading", soft_wrap=True)
    ready = ready_for(asked, path, only, label, examples, where, until, stop=stop)
    for line in ready.model.said:
        console.print(line, soft_wrap=True)
    record, cached = _done(ready, where.results), True
    if record is None:
        board.refuse_to_overwrite(where.results / "README.md")
        list(load_all(where.results / "records"))  # one that the board cannot read is told before the work
        with locked(where.results):
            sweep(where.results)
            devices = _hands(ready, where, jobs) if isinstance(asked, Asked) else []
            log = run_folder(where.results, ready.job.path) / "log.txt"
            guard = Guard(_line(ready)) if held else contextlib.nullcontext()
            with guard, Hands(devices, log, _help, asked, path, only, label, examples, where, stop) as hands:
                record, cached = _judged(ready, where, console, hands), False
            board.build(where.results)
    return record, record_folder(where.results, ready.job.path) / "record.json", cached


def _done(ready: Ready, results: Path) -> Record | None:
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


def _hands(ready: Ready, where: Where, jobs: int | None) -> list[str]:
    """The devices that can take blocks of the evaluation, beside the one that has it."""
    how, mine = ready.job.evaluation, str(ready.test.device)
    found = agenda.devices(where.device, jobs, [Item(task=ready.job.task, label="", seed=0, base=ready.base)])
    if mine == "cpu" and jobs is None:
        found = found[: len(found) // ready.job.threads]
    # Where a stopped evaluation would end depends on what is found on the way.
    blocks = 1 if ready.rule else math.ceil(len(ready.test) / how.block)
    return [device for device in found[1:] if Spread.alike(device, found[0])][: blocks - 1]


def _help(
    device: str,
    asked: Asked,
    path: Path,
    only: str | None,
    label: str | None,
    examples: int | None,
    where: Where,
    stop: bool,
) -> None:
    """Take blocks of an evaluation that another process has begun."""
    ready = ready_for(asked, path, only, label, examples, replace(where, device=device), None, stop=stop)
    _climbed(ready, where.root, _journal(ready, where), lambda *_: None, helps=True)


def _journal(ready: Ready, where: Where) -> Path:
    return run_folder(where.results, ready.job.path) / "journal" / ready.job.journal_id


def _line(ready: Ready) -> Item:
    """As a plan would have it."""
    job, takes = ready.job, ready.task.resources
    may = {"minutes": takes.minutes, "memory_gib": takes.memory_gib}
    return Item(task=job.task, label=job.label, seed=job.seed, base=ready.base).model_copy(update=may)


def _judged(ready: Ready, where: Where, console: Console, hands: Hands) -> Record:
    """Evaluate, and write the record down."""
    job, item = ready.job, _line(ready)
    started = time.monotonic()
    with Show(console, [item], 1) as show:
        show(Event(item, "start"))

        def tell(stage: str, done: int, total: int, words: str) -> None:
            show(Event(item, stage, done, total, words, time.monotonic() - started))
            hands.look()

        judged, watch = _attacked(ready, where.root, _journal(ready, where), tell)
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


def _attacked(ready: Ready, root: Path, journal: Path, tell: Tell) -> tuple[Verdicts, Watch | None]:
    job, test = ready.job, ready.test
    try:
        if ready.rule:
            return climb_until(ready.rule, job, ready.model, test, ready.classes, root, journal, tell, ready.base)
        return _climbed(ready, root, journal, tell), None
    except BadInput:
        raise
    except Exception as error:  # a stranger's network may raise at any batch
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BadInput(
            f"{job.model['name']}: stopped in the evaluation: {said}; what was done is kept, --debug shows where it was"
        ) from error


def _climbed(ready: Ready, root: Path, journal: Path, tell: Tell, *, helps: bool = False) -> Verdicts:
    job, how = ready.job, ready.job.evaluation
    attacks = ladder(how, root, ready.test, ready.classes, ready.base)
    asked = (ready.model.network, job.journal_id, ready.test, attacks, how, ready.classes)
    return climb(job, *asked, journal, tell, helps=helps)


def _tell(console: Console, record: Record, file: Path, *, cached: bool) -> None:
    scores = record.scores
    assert scores is not None
    console.print(f"{record.task}/{record.label}{': evaluated before' if cached else ''}", soft_wrap=True)
    console.print(f"clean  {_interval(scores.clean)}")
    if scores.rejected:
        console.print(f"refused {_interval(scores.rejected)} of the untouched examples")
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
