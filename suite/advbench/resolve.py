"""From a task file to its jobs: every name found, every default filled in, every error told at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from advbench import experiment, find, severities, surrogate, theory
from advbench.attacks.base import Attack
from advbench.collectors.base import Collector
from advbench.data.base import DataSet, Missing
from advbench.data.subsets import Subsets, choose
from advbench.defense import Defense
from advbench.estimate import Effort, Rate, rate
from advbench.find import PACKAGE, data_files, named, plain, read_data
from advbench.learn import Learned
from advbench.machine import Means
from advbench.models.base import Model
from advbench.parts import chosen_defense, part_errors
from advbench.plan import Item, Job, Resolved
from advbench.recipe import Training
from advbench.spec import BadInput, complaints, validate
from advbench.start import files as weight_files
from advbench.start import probe, settle
from advbench.sweeps import expand
from advbench.task import Data, Defended, Evaluation, Task, check, read


def resolve(
    path: Path,
    root: Path,
    loaded: dict[str, DataSet],
    learned: Learned | None = None,
    means: Means | None = None,
) -> Resolved:
    """Read and check a whole task file. Raises BadInput with every error that it has, prefixed by its path.

    `loaded` keeps data sets between the tasks of one plan; what `learned` knows the price of is not measured. `means`:
    what there is for jobs, where that is not this machine.
    """
    if experiment.asked(raw := read(path)):
        return theory.resolve(path, raw, root)
    variants, errors = expand(path.stem, raw)
    tasks: list[tuple[str, Task]] = []
    for variant in variants:
        task, wrong = check(variant.raw)
        wrong += part_errors(variant.raw, path.parent)
        wrong += _training_errors(task) if task else []
        errors += variant.told(wrong)
        tasks += [(variant.name, task)] if task else []
    if errors:
        # What is wrong outside the lists is wrong in each task of a sweep; once is enough.
        raise BadInput(*dict.fromkeys(f"{path}: {line}" for line in errors))
    # A sweep changes neither the data nor the defenses.
    _, task = tasks[0]
    defenses = [chosen_defense(entry, path.parent) for entry in task.defense]
    labels = [entry.label or made.name for entry, made in zip(task.defense, defenses, strict=True)]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise BadInput(f"{path}: defense '{twice[0]}' stands there twice; give one of them a label")
    lines = [(name, label, seed) for name, _ in tasks for label in labels for seed in task.training.seeds]
    if task.resources.accelerator and not (means.accelerators if means else torch.accelerator.is_available()):
        return _skipped(path, lines, "needs an accelerator, and there is none")
    try:
        data = task.data
        models = [_model(one) for _, one in tasks]
        watched = [file for entry in task.defense for file in find.defense_files(entry, path.parent)]
        watched += [*data_files(data, root), *(file for model in models for file in weight_files(model, root))]
        watched += find.own_files(task, path.parent)
        watched += [file for attack in _attacks(task, path.parent) for file in surrogate.files(attack, root)]
        # All that `read_data` looks at.
        key = repr((data.name, data.path, data.size, data.classes, data.unlabelled and data.unlabelled.path))
        if key not in loaded:
            loaded[key] = read_data(data, root)
    except Missing as missing:
        return _skipped(path, lines, str(missing))
    try:
        make = _Items(path.parent, root, loaded[key], defenses, choose(loaded[key], task.data, "cpu"), learned)
        items = [item for name, one in tasks for item in make.of(name, one)]
    except Missing as missing:
        return _skipped(path, lines, str(missing))
    except BadInput as error:
        raise BadInput(*(f"{path}: {line}" for line in error.lines)) from None
    package = sorted(PACKAGE.rglob("*.py"))
    return Resolved(items, [*package, *watched])


def _model(task: Task) -> Model:
    return named(Model, {"name": task.model.name, **task.model.fields})


def _attacks(task: Task, base: Path) -> list[Attack]:
    return [named(Attack, {"name": a.name, **a.fields}, base) for a in task.evaluation.attacks]


def _skipped(path: Path, lines: list[tuple[str, str, int]], why: str) -> Resolved:
    made = [Item(task=task, label=label, seed=seed, base=path.parent, skip=why) for task, label, seed in lines]
    return Resolved(made, [])


def evaluated(task: Task, root: Path, dataset: DataSet, base: Path) -> tuple[Evaluation, list[Attack]]:
    """The task's evaluation with all fields of its attacks filled in, and those attacks. Raises Missing or BadInput."""
    attacks: list[Attack] = []
    for number, attack in enumerate(_attacks(task, base)):
        try:
            attacks.append(surrogate.settled(attack, root, dataset.shape, dataset.classes))
        except BadInput as error:
            raise BadInput(*(f"evaluation.attacks[{number}]: {line}" for line in error.lines)) from None
    # Journals and records know stages by name, and the first stage is the untouched example.
    rungs = ["clean", *(rung.key for attack in attacks for rung in attack.parts(dataset.classes))]
    if twice := sorted({rung for rung in rungs if rungs.count(rung) > 1}):
        raise BadInput(f"evaluation.attacks: the rung '{twice[0]}' stands there twice; give one of them a label")
    if task.evaluation.corruptions:
        severities.fitting(task.evaluation.corruptions, min(dataset.shape[1:]))
    tables = [plain(made, entry.fields) for made, entry in zip(attacks, task.evaluation.attacks, strict=True)]
    return validate(Evaluation, task.evaluation.plain() | {"attacks": tables}), attacks


def undefined(task: Task, attacks: Sequence[Attack], made: Defense | None = None) -> list[str]:
    """Who of the attacks and the defense is not defined for the task's norm."""
    norms = [(made.name, made.norms)] if made else []
    norms += [(f"the attack '{attack.name}'", surrogate.norms(attack)) for attack in attacks]
    return [f"{who} is not defined for {task.threat.norm}" for who, known in norms if task.threat.norm not in known]


class _Items:
    """Makes the lines of one task after another; what a sweep leaves as it is is done once."""

    def __init__(
        self,
        base: Path,
        root: Path,
        dataset: DataSet,
        defenses: list[Defense],
        subsets: Subsets,
        learned: Learned | None,
    ) -> None:
        self.base, self.root, self.dataset = base, root, dataset
        self.defenses, self.subsets = defenses, subsets
        self.data_sha256 = dataset.sha256
        self.learned = learned or Learned()
        self.learned.kinds.update({made.name: made.adversarial for made in defenses})
        self.speeds: dict[str, Rate] = {}
        self.models: dict[str, Model] = {}

    def of(self, name: str, task: Task) -> list[Item]:
        """The lines of one task."""
        model = self._started(task)
        evaluation, attacks = evaluated(task, self.root, self.dataset, self.base)
        items: list[Item] = []
        for number, (entry, made) in enumerate(zip(task.defense, self.defenses, strict=True)):
            training, deviations = _training(task.training, entry.training, _where(number, entry))
            _shared(made, training, task.data, _where(number, entry))
            unfit = undefined(task, attacks, made)
            asked = {**(task.collect or {}), **entry.collect}
            collect = find.collectors(asked, self.base)
            first = Job(
                task=name,
                title=task.title,
                label=entry.label or made.name,
                seed=task.training.seeds[0],
                data=task.data,
                data_sha256=self.data_sha256,
                # A start that is not asked for is not spoken of, in old records and in new ones alike.
                model={key: value for key, value in plain(model).items() if value is not None},
                threat=task.threat,
                training=training,
                evaluation=evaluation,
                defense=find.defense_table(made, {"file": entry.file, **entry.fields}),
                deviations=deviations,
                collect={one.name: find.table(one, asked[one.name]) for one in collect} or None,
                threads=task.resources.threads,
                accelerator=task.resources.accelerator,
                deterministic=task.resources.deterministic or None,
            )
            line = Item(
                task=name,
                label=first.label,
                seed=first.seed,
                base=self.base,
                job=first,
                processes=made.workers(),
                minutes=task.resources.minutes,
                memory_gib=task.resources.memory_gib,
                skip="; ".join(unfit),
                **self._price(first, made, model, attacks, collect),
            )
            for seed in task.training.seeds:
                job = first.model_copy(update={"seed": seed})
                items.append(line.model_copy(update={"seed": seed, "job": job}))
        return items

    def _started(self, task: Task) -> Model:
        """The model of a task, its weights found and two images through it. Raises Missing or BadInput."""
        key = repr(task.model)
        if key not in self.models:
            model = settle(_model(task), self.root)
            probe(model, self.dataset.shape, self.dataset.classes, self.root)
            self.models[key] = model
        return self.models[key]

    def _price(
        self, job: Job, made: Defense, model: Model, attacks: list[Attack], collect: Sequence[Collector]
    ) -> dict[str, Any]:
        effort = Effort(job.training, job.evaluation, made, attacks, collect, self.subsets, self.dataset.classes)
        todo = effort.work()
        if known := self.learned.seconds(job, todo):
            return {"work": todo, "seconds": known[0], "records": known[1]}
        key = f"{job.model} {job.threat.norm}"
        if key not in self.speeds:
            self.speeds[key] = rate(model, self.dataset, job.threat.norm)
        return {"work": todo, "seconds": effort.seconds(self.speeds[key])}


def _where(number: int, entry: Defended) -> str:
    return f'defense[{number}] "{entry.name or entry.file}"'


def _shared(made: Defense, training: Training, data: Data, where: str) -> None:
    """Refuse a task that does not offer what a defense needs. Raises BadInput."""
    if "unlabelled" in made.needs() and data.unlabelled is None:
        raise BadInput(f"{where}: needs unlabelled images; give the task a [data.unlabelled] table with a count")
    if training.batch < 2 * made.workers():
        raise BadInput(
            f"{where}: {made.workers()} processes share a batch of {training.batch}; each should have 2 images at least"
        )


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
