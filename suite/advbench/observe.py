"""`advbench collect`: what collectors find on any model, beside its record where there is one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from safetensors.torch import load as tensors
from safetensors.torch import save as bytes_of

from advbench import board, find, measures, task
from advbench import figures as drawings
from advbench.along import ALONG
from advbench.collectors.base import Collector
from advbench.execute.lock import locked
from advbench.external import external, identity
from advbench.files import sweep, write_bytes, write_json
from advbench.index import canonical
from advbench.judging import Ready, Where, ready_for
from advbench.measures import Found
from advbench.outside import Asked
from advbench.plan import record_folder, run_folder
from advbench.record import BESIDE, MEASURES, Record, load, load_all, save, whole
from advbench.spec import BadInput
from advbench.task import Task

CHEAP = ("calibration", "fosc", "influence", "input-hessian", "linearity", "margins", "sparsity")
"""What is collected where neither the task nor a person says what: a few seconds for a small network. The others
(param-hessian, sharpness, smoothness) move or bend the weights, or prove something (certified), and each takes as long
as all of these or longer."""
EXAMPLES = 256
"""On how many of the first test examples, where nobody says."""


def observe(
    asked: Asked,
    path: Path,
    only: str | None,
    label: str | None,
    names: Sequence[str],
    where: Where,
    *,
    as_json: bool,
    figures: str | None = None,
) -> None:
    """Let the collectors called `names` look at the model, as the task says, and print what they find.

    A name that ends with .py is a file with a collector of one's own, wherever it lies.
    Without names, those of the task's `[collect]`, or the cheap ones. What they find goes into the record of this very
    model in the results, or into measures/TASK/LABEL/ there. What was found before is not done again. With
    `figures`, png or svg, each collector's arrays are drawn into measures/TASK/. Raises BadInput.
    """
    if figures:
        drawings.ready()
    own = task.read(path).get("collect") if path.is_file() else None
    for name in names:
        try:
            if not (isinstance(own, dict) and name in own):
                _kind(name)
        except BadInput as error:
            raise BadInput(f"--collector: {error}") from None
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
        console.print(f"{asked.word}: loading", soft_wrap=True)
        ready = ready_for(asked, path, only, label, None, where, None)
        for line in ready.model.said:
            console.print(line, soft_wrap=True)
        collectors = _chosen(ready.task, names, ready.base)
        board.refuse_to_overwrite(where.results / "README.md")
        list(load_all(where.results / "records"))  # one that the board cannot read is told before the work
        with locked(where.results):
            sweep(where.results)
            record = _record(ready, asked, where.results)
            found = _collected(ready, record, collectors, where.results, console)
            file = _into(record, found, where.results) if record else _beside(ready, found, where.results)
            if record:
                board.build(where.results)
            place = _path(record) if record else f"{ready.job.task}/{ready.job.label}"
            drawn = _drawn(found, where.results, place, figures) if figures else []
    if as_json:
        said = {"path": str(file), "task": ready.job.task, "figures": [str(figure) for figure in drawn]}
        print(json.dumps(said | _said(found), indent=1))
    else:
        _tell(console, found, file)
        for figure in drawn:
            console.print(f"figure: {figure}", soft_wrap=True)


def _chosen(said: Task, names: Sequence[str], base: Path) -> list[Collector]:
    tables = dict(said.collect or {})
    made = find.collectors(tables, base)
    along = [collector.name for collector in made if collector.along_only]
    wanted: list[str] = []
    for word in list(names or [name for name in tables if name not in along] or CHEAP):
        if word in tables:
            wanted.append(word)
            continue
        kind = _kind(word)
        file = {"file": str(Path(word).resolve())} if kind.sha256 else {}
        # On how many examples it looks by default, but never on all of them.
        tables[kind.name] = file | {"examples": kind.model_fields["examples"].default or EXAMPLES}
        wanted.append(kind.name)
    found = find.collectors({name: tables[name] for name in dict.fromkeys(wanted)}, base)
    if watching := [collector.name for collector in found if collector.along_only]:
        raise BadInput(
            f"--collector: '{watching[0]}' watches the steps of a training; a task's [collect] may ask for it"
        )
    return found


def _kind(name: str) -> type[Collector]:
    """By the name of one of the suite's, or by the path of one's own."""
    return find.own(Collector, Path(name)) if name.endswith(".py") else find.part(Collector, name)


def _record(ready: Ready, asked: Asked, results: Path) -> Record | None:
    """The record of this very model on the task's data and threat; None where there is none."""
    paths, here = [ready.job.path], Path(asked.word).resolve()
    if here.is_dir() and here.parents[2] == results.resolve():
        paths = [f"{here.parent.name}/{here.name}", *paths]
    for path in paths:
        folder = record_folder(results, path)
        if not (folder / "record.json").is_file():
            continue
        record = load(folder / "record.json")
        if record.status == "ok" and _judged_alike(record, ready) and whole(record, folder):
            return record
    return None


def _judged_alike(record: Record, ready: Ready) -> bool:
    """Whether it is of the same weights, on the same examples under the same threat."""
    mine, theirs = ready.job.plain(), record.job
    if external(record.defense, theirs):
        same = identity(theirs["model"]) == identity(mine["model"])
        # One that was stopped early, or asked for a part, was judged on fewer examples.
        same = same and theirs.get("examples") is None and theirs.get("until") is None
    else:
        digests = record.provenance.get("weights_sha256") or {}
        judged = digests.get(theirs["evaluation"]["checkpoint"])
        same = judged == mine["model"].get("weights_sha256") and theirs["model"] == mine["model"].get("family")
    data = all(theirs["data"].get(key) == mine["data"][key] for key in ("name", "test", "order", "seed"))
    return same and data and all(theirs.get(key) == mine[key] for key in ("data_sha256", "threat"))


def _collected(
    ready: Ready, record: Record | None, collectors: Sequence[Collector], results: Path, console: Console
) -> dict[str, Found]:
    about = ready.job.model
    # A job of ours is known by its weights, and finds what its own run has journalled; a stranger's code is part of it.
    ours = "family" in about and record is not None and not external(record.defense, record.job)
    weights = about["weights_sha256"] if ours else hashlib.sha256(canonical(identity(about)).encode()).hexdigest()
    journal = run_folder(results, _path(record) if record else ready.job.path) / "journal" / "collect"

    def tell(_stage: str, done: int, total: int, words: str) -> None:
        if words:
            console.print(f"  ...  {done}/{total} {words}", soft_wrap=True)

    return measures.found(ready.job, ready.model.network, weights, ready.test, collectors, journal, tell)


def _path(record: Record) -> str:
    return f"{record.task}/{record.label}-s{record.seed}"


def _into(record: Record, found: dict[str, Found], results: Path) -> Path:
    """Write `found` into the record, in the place of what the same collectors found before."""
    folder = record_folder(results, _path(record))
    files = {name: (folder / name).read_bytes() for name in BESIDE if name in record.files}
    arrays = tensors(files.pop(MEASURES)) if MEASURES in files else {}
    new = measures.beside(found)
    arrays = {name: value for name, value in arrays.items() if name.partition("/")[0] not in found}
    arrays |= tensors(new[MEASURES]) if new else {}
    along = {name: tuple(n for n in record.measure_notes.get(name, ()) if n.startswith(ALONG)) for name in found}
    said = measures.fields(found, along)
    kept = {name: value for name, value in record.measures.items() if name not in found}
    update = {"measures": kept | said["measures"], "measure_notes": record.measure_notes | said["measure_notes"]}
    save(record.model_copy(update=update), folder, files | ({MEASURES: bytes_of(arrays)} if arrays else {}))
    return folder / "record.json"


def _beside(ready: Ready, found: dict[str, Found], results: Path) -> Path:
    """Write `found` into a folder of its own; the JSON comes last and has the digest of the arrays."""
    folder = results / "measures" / ready.job.task / ready.job.label
    file, model = folder / "measures.json", ready.job.model
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if identity(json.loads(file.read_text("utf-8"))["model"]) != identity(model):
            raise BadInput(
                f"{file}: holds another model's measures; give this one another --label, or remove that folder"
            )
    files = measures.beside(found)
    file.unlink(missing_ok=True)
    (folder / MEASURES).unlink(missing_ok=True)
    for name, content in files.items():
        write_bytes(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    job = {key: value for key, value in ready.job.plain().items() if key in ("task", "data", "data_sha256", "threat")}
    write_json(file, {**job, "label": ready.job.label, "model": model, **_said(found), "files": digests})
    return file


def _drawn(found: dict[str, Found], results: Path, place: str, kind: str) -> list[Path]:
    """The figures of what has any, in a folder of the model's own; never beside a record, whose files are counted."""
    files: list[Path] = []
    for name, one in found.items():
        arrays = {key: value.numpy() for key, value in one.arrays.items()}
        if content := drawings.draw(name, arrays, place, kind):
            files.append(results / "measures" / place / f"{name}.{kind}")
            write_bytes(files[-1], content)
    return files


def _said(found: dict[str, Found]) -> dict[str, Any]:
    said = measures.fields(found)
    values = {name: {key: value.plain() for key, value in one.items()} for name, one in said["measures"].items()}
    return {"measures": values, "measure_notes": said["measure_notes"]}


def _tell(console: Console, found: dict[str, Found], file: Path) -> None:
    for collector, one in found.items():
        table = Table()
        for column in (collector, "value", "unit"):
            table.add_column(column, justify="right" if column == "value" else "left", overflow="fold")
        for name, value in one.values.items():
            table.add_row(name, "none" if value.value is None else f"{value.value:.4g}", value.unit)
        if table.row_count:
            console.print(table)
        console.print(f"{collector}: {'; '.join(one.notes)}", soft_wrap=True)
    console.print(f"measures, with the meaning of each: {file}", soft_wrap=True)
