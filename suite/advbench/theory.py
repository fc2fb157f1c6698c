"""From a study's task file to its lines of the plan: the study found, every default filled in, its data read."""

from __future__ import annotations

from pathlib import Path

from advbench.data.base import DataSet, Missing
from advbench.experiment import Experiment, StudyTask, check
from advbench.find import build, data_files, part, read_data
from advbench.identity import code
from advbench.load import PACKAGE, own
from advbench.plan import Item, Resolved
from advbench.spec import BadInput
from advbench.study import Study
from advbench.task import Data


def resolve(path: Path, raw: dict[str, object], root: Path) -> Resolved:
    """Read and check a study's whole task file. Raises BadInput with every error that it has, prefixed by its path."""
    task, errors = check(raw)
    if task is None:
        raise BadInput(*(f"{path}: {line}" for line in errors))
    try:
        return _resolved(task, path, root)
    except BadInput as error:
        raise BadInput(*(f"{path}: {line}" for line in error.lines)) from None


def _resolved(task: StudyTask, path: Path, root: Path) -> Resolved:
    table = task.study
    kind, file = _found(table.name, table.file, path.parent)
    made = build(kind, table.fields, "study")
    if task.data and made.data is None:
        raise BadInput(f"data: the study '{made.name}' makes its own; take the table out")
    data, dataset, instead = _data(task, made, root)
    if dataset is not None:
        made.fit(dataset)
    first = Experiment(
        task=path.stem,
        title=task.title,
        label=made.name,
        seed=table.seeds[0],
        study={
            "name": made.name,
            "file": table.file,
            "sha256": code(file.read_bytes()),
            **made.plain(),
        },
        data=data,
        data_sha256=dataset.sha256 if dataset else None,
        instead=instead,
        threads=task.resources.threads,
        accelerator=task.resources.accelerator,
        deterministic=task.resources.deterministic or None,
    )
    line = Item(
        task=path.stem,
        label=made.name,
        seed=first.seed,
        base=path.parent,
        job=first,
        seconds=made.seconds,
        minutes=task.resources.minutes,
        memory_gib=task.resources.memory_gib,
    )
    items = [
        line.model_copy(update={"seed": seed, "job": first.model_copy(update={"seed": seed})}) for seed in table.seeds
    ]
    watched = [*sorted(PACKAGE.rglob("*.py")), file, *(data_files(data, root) if data else [])]
    return Resolved(items, watched)


def _found(name: str | None, file: str | None, base: Path) -> tuple[type[Study], Path]:
    """The class of a study and the file that it is in: a user's relative to `base`, or the suite's by name."""
    if file is not None:
        return own(Study, base / file), base / file
    kind = part(Study, str(name))
    return kind, PACKAGE / "studies" / f"{kind.name.replace('-', '_')}.py"


def _data(task: StudyTask, made: Study, root: Path) -> tuple[Data | None, DataSet | None, str | None]:
    """The data of a study; its own, and the name of what was asked for, where that is not here."""
    if made.data is None:
        return None, None, None
    asked = task.data or made.data
    try:
        return asked, read_data(asked, root), None
    except Missing:
        return made.data, read_data(made.data, root), asked.name


def of(job: Experiment, base: Path) -> Study:
    """The study of a resolved experiment. Raises BadInput when its file is no longer the one that was planned."""
    kind, source = _found(job.study["name"], job.study["file"], base)
    if code(source.read_bytes()) != job.study["sha256"]:
        raise BadInput(f"{source}: changed since the plan was made; run again")
    return build(kind, {k: v for k, v in job.study.items() if k not in ("name", "file", "sha256")})
