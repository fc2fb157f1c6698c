"""From a name or a file in a task to the class it means.

The folder listing is the registry: an attack called `pgd` is the file attacks/pgd.py, a defense called `pgd-at`
is baselines/pgd_at.py. To add one is to add one file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, TypeVar

from pydantic import ValidationError

import advbench
from advbench.attacks.base import Attack
from advbench.attacks.library import Library as AttackLibrary
from advbench.collectors.base import Collector
from advbench.data import pool
from advbench.data.base import DataSet, Source
from advbench.data.classes import only
from advbench.defense import Defense
from advbench.models.base import Model
from advbench.models.library import Library as ModelLibrary
from advbench.plan import Job
from advbench.spec import BadInput, Part, complaints, did_you_mean, validate
from advbench.task import Data, Defended, shipped

PACKAGE = Path(advbench.__file__).parent
NO_PARTS = {"__init__", "base"} | {
    "apgd_schedule",
    "augment",
    "classes",
    "decode",
    "fab_projections",
    "folders",
    "gates",
    "input_spectrum",
    "lanczos",
    "landscape",
    "library",
    "pool",
    "preact",
    "published",
    "randaugment",
    "squares",
    "stream",
    "subsets",
    "weight_products",
}
"""Files of the part folders that hold no part."""

P = TypeVar("P", bound=Part)


def names(folder: Path) -> list[str]:
    """The parts that a folder holds, by name."""
    return sorted(f.stem.replace("_", "-") for f in folder.glob("*.py") if f.stem not in NO_PARTS)


def part(kind: type[P], name: str) -> type[P]:
    """The attack, collector, model or data source called `name`. Raises BadInput with the nearest known name.

    `torchvision:resnet50` is a model of the family `torchvision`, which stands for all of that library's; so is
    `torchattacks:DIFGSM` an attack.
    """
    folder = {Attack: "attacks", Collector: "collectors", Model: "models", Source: "data"}[kind]  # type: ignore[index]
    known = names(PACKAGE / folder)
    word = {Attack: "attack", Collector: "collector", Model: "model", Source: "data set"}[kind]  # type: ignore[index]
    family, colon, member = name.partition(":")
    if family in known:
        inside = importlib.import_module(f"advbench.{folder}.{family.replace('-', '_')}")
        found = next(c for c in _classes(inside, kind) if getattr(c, "name", None) == family)
        if not colon:
            return found
        if issubclass(found, (ModelLibrary, AttackLibrary)):
            return found.chosen(member)
    raise BadInput(f"no {word} '{name}'{did_you_mean(name, known)}")


def is_family(kind: type[Part]) -> bool:
    """Whether it stands for all that a library has, each named `family:member`."""
    return issubclass(kind, (ModelLibrary, AttackLibrary))


def _classes(inside: ModuleType, kind: type[P]) -> list[type[P]]:
    found = [c for c in vars(inside).values() if isinstance(c, type) and issubclass(c, kind)]
    return [c for c in found if c.__module__ == inside.__name__]


def defense_file(entry: Defended, base: Path) -> Path:
    """The file behind a `[[defense]]`: a baseline by name, or a path relative to the task file's folder."""
    if entry.file is not None:
        return base / entry.file
    known = names(shipped("baselines"))
    if entry.name not in known:
        raise BadInput(f"no defense '{entry.name}'{did_you_mean(entry.name or '', known)}")
    return shipped("baselines") / f"{entry.name.replace('-', '_')}.py"


def defense(path: Path) -> type[Defense]:
    """Run a defense file and return its one Defense class. Raises BadInput when it cannot be loaded."""
    found = _classes(module(path, "defense"), Defense)
    if len(found) != 1:
        raise BadInput(f"{path}: should define one subclass of advbench.defense.Defense, it has {len(found)}")
    if taken := sorted(found[0].model_fields.keys() & (Defended.model_fields.keys() | {"sha256"})):
        raise BadInput(f"{path}: a field cannot be called '{taken[0]}'; a [[defense]] table means something else by it")
    for attribute in ("name", "paper"):
        if not hasattr(found[0], attribute):
            raise BadInput(f'{path}: {found[0].__name__} has no {attribute}; add {attribute} = "..."')
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(found[0].name)):
        raise BadInput(f"{path}: name {found[0].name!r} names folders: use letters, digits and . _ -")
    return found[0]


def module(path: Path, what: str) -> ModuleType:
    """Run a stranger's file, once for the same bytes. Raises BadInput when it cannot be loaded; `what` it should be."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    name = f"advbench_{what}_{path.stem}_{hashlib.sha256(source).hexdigest()[:12]}"
    if name not in sys.modules:
        if path.suffix != ".py":
            raise BadInput(f"{path}: a {what} is a Python file (*.py)")
        spec = importlib.util.spec_from_loader(name, _Read(name, str(path), source), origin=str(path))
        assert spec is not None
        assert spec.loader is not None
        made = importlib.util.module_from_spec(spec)
        sys.modules[name] = made  # before it runs: pydantic and pickle look modules up by name
        try:
            spec.loader.exec_module(made)
        except (Exception, SystemExit) as error:  # whatever a stranger's file raises, sys.exit() too
            del sys.modules[name]
            raise BadInput(f"{path}: raised on import: {type(error).__name__}: {error}{where_in(path)}") from error
    return sys.modules[name]


class _Read(SourceFileLoader):
    """Runs the very bytes that were hashed; Python's cache knows a file by its size and second only."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self.source_to_code(self.source, self.path)


def where_in(path: Path) -> str:
    """Of the exception that is being handled: ` (line 12)`, where that lies in the file."""
    frames = traceback.extract_tb(sys.exc_info()[2])
    # Frames know the absolute path, whatever the task file wrote.
    inside = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f" (line {inside[-1]})" if inside else ""


def build(kind: type[P], fields: Mapping[str, Any], where: str = "") -> P:
    """A part with these fields. Raises BadInput with one line for each wrong one."""
    try:
        return validate(kind, fields)
    except ValidationError as error:
        raise BadInput(*complaints(error, kind, where)) from None


def named(kind: type[P], fields: Mapping[str, Any]) -> P:
    """A part from a table that holds its name: `{"name": "pgd", "steps": 20}`."""
    rest = {key: value for key, value in fields.items() if key != "name"}
    return build(part(kind, fields["name"]), rest)


def collectors(tables: Mapping[str, Mapping[str, Any]]) -> list[Collector]:
    """The collectors of a `[collect]` table. Raises BadInput with all that is wrong."""
    made: list[Collector] = []
    errors: list[str] = []
    for name, fields in tables.items():
        try:
            kind = part(Collector, name)
        except BadInput as error:
            errors += [f"collect: {line}" for line in error.lines]
            continue
        try:
            made.append(build(kind, fields, f"collect.{name}"))
        except BadInput as error:
            errors += error.lines
    if errors:
        raise BadInput(*errors)
    return made


def plain(made: Part) -> dict[str, Any]:
    """The table that `named` builds this part from."""
    return {"name": made.name, **made.plain()}


def source(data: Data) -> Source:
    """The data source of a task."""
    said = {"path": data.path, "size": data.size}
    return build(part(Source, data.name), {key: value for key, value in said.items() if value is not None})


def data_files(data: Data, root: Path) -> list[Path]:
    """The files whose size and time tell that the data of a task have not changed. Raises Missing."""
    further = [pool.file(root, data.unlabelled.path)] if data.unlabelled and data.unlabelled.path else []
    return [*source(data).files(root), *further]


def read_data(data: Data, root: Path) -> DataSet:
    """The data of a task, all read and checked. Raises Missing or BadInput."""
    whole = source(data).load(root)
    if data.classes:
        whole = only(whole, data.classes)
    return pool.pooled(whole, root, data.unlabelled.path) if data.unlabelled and data.unlabelled.path else whole


def job_defense(job: Job, base: Path) -> Defense:
    """The defense of a resolved job. Raises BadInput when its file is no longer the one that was planned."""
    entry = Defended(name=None if job.defense["file"] else job.defense["name"], file=job.defense["file"])
    file = defense_file(entry, base)
    if hashlib.sha256(file.read_bytes()).hexdigest() != job.defense["sha256"]:
        raise BadInput(f"{file}: changed since the plan was made; run again")
    fields = {key: value for key, value in job.defense.items() if key not in ("name", "file", "sha256")}
    return build(defense(file), fields)
