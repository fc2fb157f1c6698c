"""From a task file to its jobs: every name found, every default filled in, every error told at once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from advbench.attacks.base import Attack
from advbench.data.base import DataSet, Missing, Source
from advbench.data.subsets import choose
from advbench.defense import Defense
from advbench.estimate import rate, seconds
from advbench.find import PACKAGE, build, defense, defense_file, named, part, plain, source
from advbench.models.base import Model
from advbench.plan import Item, Job
from advbench.spec import BadInput, complaints, validate
from advbench.start import files as weight_files
from advbench.start import probe, settle
from advbench.task import Defended, Entry, Evaluation, Task, Training, check, read


@dataclass(frozen=True)
class Resolved:
    """A task file's jobs and the files they depend on; a skipped task has items without jobs."""

    items: list[Item]
    watched: list[Path]


def resolve(path: Path, root: Path, loaded: dict[str, DataSet]) -> Resolved:
    """Read and check a whole task file. Raises BadInput with every error that it has, prefixed by its path.

    `loaded` keeps data sets between the tasks of one plan.
    """
    raw = read(path)
    task, errors = check(raw)
    errors += _part_errors(raw, path.parent)
    errors += _training_errors(task) if task else []
    if task is None or errors:
        raise BadInput(*(f"{path}: {line}" for line in errors))
    files = [defense_file(entry, path.parent) for entry in task.defense]
    classes = [defense(file) for file in files]
    labels = [entry.label or made.name for entry, made in zip(task.defense, classes, strict=True)]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise BadInput(f"{path}: defense '{twice[0]}' stands there twice; give one of them a label")
    lines = [(label, seed) for label in labels for seed in task.training.seeds]
    if task.resources.accelerator and not torch.accelerator.is_available():
        return _skipped(path, lines, "needs an accelerator, and this machine has none")
    try:
        data = source(task.data)
        model = named(Model, {"name": task.model.name, **task.model.fields})
        watched = [*files, *data.files(root), *weight_files(model, root)]
        key = f"{data.name}/{data.path}"
        if key not in loaded:
            loaded[key] = data.load(root)
    except Missing as missing:
        return _skipped(path, lines, str(missing))
    try:
        model = settle(model, root)
        probe(model, loaded[key].shape, loaded[key].classes, root)
        items = _items(task, path, loaded[key], model, classes, files)
    except Missing as missing:
        return _skipped(path, lines, str(missing))
    except BadInput as error:
        raise BadInput(*(f"{path}: {line}" for line in error.lines)) from None
    package = sorted(PACKAGE.rglob("*.py"))
    return Resolved(items, [*package, *watched])


def _skipped(path: Path, lines: list[tuple[str, int]], why: str) -> Resolved:
    base = path.parent
    return Resolved([Item(task=path.stem, label=label, seed=seed, base=base, skip=why) for label, seed in lines], [])


def _part_errors(raw: Mapping[str, Any], base: Path) -> list[str]:
    """What is wrong with the tables that only a part's class can judge; structural errors are skipped here."""
    errors: list[str] = []

    def attempt(where: str, values: Any, schema: type[Entry | Defended], make: Any) -> None:
        try:
            make(validate(schema, {"name": values} if isinstance(values, str) else values))
        except ValidationError:
            pass  # `check` has said it
        except BadInput as error:
            errors.extend(f"{where}: {line}" for line in error.lines)

    def model(entry: Entry) -> None:
        build(part(Model, entry.name), entry.fields)

    def attack(entry: Entry) -> None:
        build(part(Attack, entry.name), entry.fields)

    def one_defense(entry: Defended) -> None:
        made = defense(defense_file(entry, base))
        build(made, entry.fields)

    data: Any = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("name"), str):  # pyright: ignore[reportUnknownMemberType]
        try:
            kind = part(Source, str(data["name"]))
        except BadInput as error:
            errors.extend(f"data.name: {line}" for line in error.lines)
        else:
            where: Any = data.get("path")
            if where is None or isinstance(where, str):
                attempt("data", {"name": data["name"]}, Entry, lambda _: build(kind, {"path": where}))
    attempt("model", raw.get("model"), Entry, model)
    ladder: Any = raw.get("evaluation", {}).get("attacks", []) if isinstance(raw.get("evaluation", {}), dict) else []
    for i, entry in enumerate(ladder if isinstance(ladder, list) else []):  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        attempt(f"evaluation.attacks[{i}]", entry, Entry, attack)
    defenses: Any = raw.get("defense", [])
    for i, entry in enumerate(defenses if isinstance(defenses, list) else []):  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        title = f' "{entry.get("name") or entry.get("file")}"' if isinstance(entry, dict) else ""  # pyright: ignore[reportUnknownMemberType]
        attempt(f"defense[{i}]{title}", entry, Defended, one_defense)
    return errors


def _items(
    task: Task, path: Path, dataset: DataSet, model: Model, classes: list[type[Defense]], files: list[Path]
) -> list[Item]:
    attacks = [named(Attack, {"name": a.name, **a.fields}) for a in task.evaluation.attacks]
    # Journals and records know stages by name, and the first stage is the untouched example.
    rungs = ["clean", *(rung.key for attack in attacks for rung in attack.parts(dataset.classes))]
    if twice := sorted({rung for rung in rungs if rungs.count(rung) > 1}):
        raise BadInput(f"evaluation.attacks: the rung '{twice[0]}' stands there twice; give one of them a label")
    evaluation = validate(Evaluation, task.evaluation.plain() | {"attacks": [plain(a) for a in attacks]})
    subsets = choose(dataset, task.data, "cpu")
    speed = rate(model, dataset)
    digest = dataset.sha256
    items: list[Item] = []
    for number, (entry, kind, file) in enumerate(zip(task.defense, classes, files, strict=True)):
        made = build(kind, entry.fields)
        training, deviations = _training(task.training, entry.training, _where(number, entry))
        norms = [made.norms, *(a.norms for a in attacks)]
        unfit = any(task.threat.norm not in known for known in norms)
        skip = f"not defined for {task.threat.norm}" if unfit else ""
        for seed in task.training.seeds:
            job = Job(
                task=path.stem,
                title=task.title,
                label=entry.label or made.name,
                seed=seed,
                data=task.data,
                data_sha256=digest,
                # A start that is not asked for is not spoken of, in old records and in new ones alike.
                model={key: value for key, value in plain(model).items() if value is not None},
                threat=task.threat,
                training=training,
                evaluation=evaluation,
                defense={
                    "name": made.name,
                    "file": entry.file,
                    "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                    **made.plain(),
                },
                deviations=deviations,
                threads=task.resources.threads,
                accelerator=task.resources.accelerator,
            )
            cost = seconds(training, evaluation, made, attacks, subsets, dataset.classes, speed)
            items.append(
                Item(
                    task=job.task,
                    label=job.label,
                    seed=seed,
                    base=path.parent,
                    job=job,
                    seconds=cost,
                    skip=skip,
                )
            )
    return items


def _where(number: int, entry: Defended) -> str:
    return f'defense[{number}] "{entry.name or entry.file}"'


def _training_errors(task: Task) -> list[str]:
    errors: list[str] = []
    for number, entry in enumerate(task.defense):
        try:
            _training(task.training, entry.training, _where(number, entry))
        except BadInput as error:
            errors.extend(error.lines)
    return errors


def _training(base: Training, changes: dict[str, Any], where: str) -> tuple[Training, dict[str, Any]]:
    if "seeds" in changes:
        raise BadInput(f"{where}.training: seeds belong to the task, so that all defenses have the same ones")
    plain = base.plain()
    training = build_training({**plain, **changes}, f"{where}.training")
    return training, {key: value for key, value in training.plain().items() if value != plain[key]}


def build_training(fields: dict[str, Any], where: str) -> Training:
    """A Training from its table. Raises BadInput with one line for each wrong field."""
    try:
        return validate(Training, fields)
    except ValidationError as error:
        raise BadInput(*complaints(error, Training, where)) from None
