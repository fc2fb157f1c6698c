"""A model from anywhere and a task's data, threat and attacks, made ready for each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advbench import agenda, find
from advbench.data.base import Examples, Missing
from advbench.data.subsets import choose
from advbench.external import External
from advbench.outside import Asked, Outside, load
from advbench.outside import check as inspect
from advbench.parts import part_errors
from advbench.plan import EVALUATION_PROTOCOL, Item
from advbench.prepare import set_up
from advbench.resolve import evaluated, undefined
from advbench.spec import BadInput
from advbench.sweeps import expand
from advbench.task import Task, check, files, read
from advbench.until import Rule, Until, ruled
from advbench.weights import digest

JUDGED = ("data", "evaluation", "collect")
"""Tables of a task that say how a model is judged."""
PROBE = 2
"""Test images that are tried before the evaluation."""


@dataclass(frozen=True)
class Where:
    """The folders and the device of an evaluation."""

    results: Path
    root: Path
    device: str


@dataclass(frozen=True)
class Ready:
    """A job, and what it takes to do it."""

    task: Task
    job: External
    model: Outside
    test: Examples
    classes: int
    base: Path = Path()
    """The folder of the task file."""
    rule: Rule | None = None
    """When to stop, where not at the end."""


@dataclass(frozen=True)
class Given:
    """A module that is there already, as a notebook has it."""

    network: nn.Module

    @property
    def word(self) -> str:
        return type(self.network).__name__

    def load(self, images: Tensor, classes: int) -> Outside:
        """As `outside.load`, of what answers as it should. Raises BadInput."""
        said = inspect(self.network, images, classes, self.word)
        about = {"name": self.word, "weights_sha256": digest(self.network.state_dict())}
        return Outside(self.network, self.word, about, {}, said)


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
        wrong += part_errors({key: variant.raw[key] for key in JUDGED if key in raw}, path.parent)
        errors += variant.told(wrong)
        tasks += [(variant.name, task)] if task else []
    if errors:
        raise BadInput(*dict.fromkeys(f"{path}: {line}" for line in errors))
    defenses: Any = said.get("defense")
    own = [entry for entry in defenses if isinstance(entry, dict)] if isinstance(defenses, list) else []  # pyright: ignore[reportUnknownVariableType]
    # One from a file is called what its class says, and the file is not run for that: its record tells.
    labels = [entry.get("label") or entry.get("name") for entry in own]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return *tasks[0], [str(label) for label in labels if label]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def ready_for(
    asked: Asked | Given,
    path: Path,
    only: str | None,
    label: str | None,
    examples: int | None,
    where: Where,
    until: Until | None,
    *,
    stop: bool = True,
) -> Ready:
    """The job of an evaluation, and what it takes to do it. Raises BadInput."""
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
        evaluation, attacks = evaluated(task, where.root, dataset, path.parent)
        evaluation = evaluation if stop else evaluation.model_copy(update={"stop": False})
        test = choose(dataset, task.data, device).test
    except Missing as missing:
        raise BadInput(f"{path}: {missing}") from None
    except BadInput as error:
        raise BadInput(*(f"{path}: {line}" for line in error.lines)) from None
    if unfit := undefined(task, attacks):
        raise BadInput(f"{path}: {'; '.join(unfit)}")
    if examples is not None and examples > len(test):
        raise BadInput(f"--examples {examples}: the task has {len(test)} test examples")
    set_up(task.resources.threads, device, deterministic=task.resources.deterministic)
    images = test.pixels(slice(0, PROBE))
    model = (
        asked.load(images, dataset.classes) if isinstance(asked, Given) else load(asked, task, images, dataset.classes)
    )
    # A stranger's file may have switched something.
    set_up(task.resources.threads, device, deterministic=task.resources.deterministic)
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
    return Ready(task, job, model, test.some(slice(0, examples)), dataset.classes, path.parent, rule)
