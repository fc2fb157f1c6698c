"""From the tables of a task to the parts they mean, and back."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from advbench.attacks.base import Attack
from advbench.attacks.library import Library as AttackLibrary
from advbench.collectors.base import Collector
from advbench.data import pool
from advbench.data.base import DataSet, Source
from advbench.data.classes import only
from advbench.defense import Defense
from advbench.identity import code
from advbench.load import PACKAGE, classes, names, own
from advbench.models.base import Model
from advbench.models.library import Library as ModelLibrary
from advbench.plan import Job
from advbench.spec import BadInput, Part, complaints, did_you_mean, validate
from advbench.study import Study
from advbench.task import Data, Defended, Task, shipped
from advbench.wrapper import USUAL, Wrapper

P = TypeVar("P", bound=Part)


def part(kind: type[P], name: str) -> type[P]:
    """The attack, collector, model, study or data source called `name`. Raises BadInput with the nearest known name.

    `torchvision:resnet50` is a model of the family `torchvision`, which stands for all of that library's; so is
    `torchattacks:DIFGSM` an attack.
    """
    folder = {Attack: "attacks", Collector: "collectors", Model: "models", Source: "data", Study: "studies"}[kind]  # type: ignore[index]
    known = names(PACKAGE / folder)
    word = {Source: "data set"}.get(kind, kind.__name__.lower())  # type: ignore[call-overload]
    family, colon, member = name.partition(":")
    if family in known:
        inside = importlib.import_module(f"advbench.{folder}.{family.replace('-', '_')}")
        found = next(c for c in classes(inside, kind) if getattr(c, "name", None) == family)
        if not colon:
            return found
        if issubclass(found, (ModelLibrary, AttackLibrary)):
            return found.chosen(member)
    raise BadInput(f"no {word} '{name}'{did_you_mean(name, known)}")


def is_family(kind: type[Part]) -> bool:
    """Whether it stands for all that a library has, each named `family:member`."""
    return issubclass(kind, (ModelLibrary, AttackLibrary))


def defense_file(entry: Defended, base: Path) -> Path:
    """The file behind a `[[defense]]`: a baseline by name, or a path relative to the task file's folder."""
    if entry.file is not None:
        return base / entry.file
    known = names(shipped("baselines"))
    if entry.name not in known:
        raise BadInput(f"no defense '{entry.name}'{did_you_mean(entry.name or '', known)}")
    return shipped("baselines") / f"{entry.name.replace('-', '_')}.py"


def defense(path: Path) -> type[Defense]:
    """The one Defense class of a file. Raises BadInput when it cannot be loaded."""
    found = own(Defense, path)
    if taken := sorted(found.model_fields.keys() & (Defended.model_fields.keys() | {"sha256"})):
        raise BadInput(f"{path}: a field cannot be called '{taken[0]}'; a [[defense]] table means something else by it")
    return found


def chosen(kind: type[P], written: Mapping[str, Any], base: Path) -> type[P]:
    """The class that a table means, by its `name`, or by its `file` relative to `base`.

    Raises BadInput, also for a file that is not the one of the table's `sha256`.
    """
    if "file" not in written:
        return part(kind, written["name"])
    if not isinstance(written["file"], str):
        raise BadInput("file should be the path of a Python file")
    path = base / written["file"]
    found = own(kind, path)
    if written.get("sha256") not in (None, found.sha256):
        raise BadInput(f"{path}: changed since the plan was made; run again")
    if written.get("name", found.name) != found.name:
        raise BadInput(f"{path}: {found.__name__} is called '{found.name}', and here '{written['name']}'; use one name")
    return found


def own_files(task: Task, base: Path) -> list[Path]:
    """The files of a task's own attacks and collectors."""
    collected = [task.collect or {}, *(entry.collect for entry in task.defense)]
    tables = [attack.fields for attack in task.evaluation.attacks]
    tables += [table for one in collected for table in one.values()]
    return [base / str(one["file"]) for one in tables if "file" in one]


def build(kind: type[P], fields: Mapping[str, Any], where: str = "") -> P:
    """A part with these fields. Raises BadInput with one line for each wrong one."""
    try:
        return validate(kind, fields)
    except ValidationError as error:
        raise BadInput(*complaints(error, kind, where)) from None


def defended(kind: type[Defense], fields: Mapping[str, Any], folder: Path) -> Defense:
    """A defense with these fields, and with its `base`: a table as well, or made already.

    The base's file is relative to `folder`. Raises BadInput with one line for each wrong field; those of the base
    begin with ".base".
    """
    if not issubclass(kind, Wrapper) or "base" not in fields:
        return build(kind, fields)
    errors: list[str] = []
    inner: dict[str, Defense] = {}
    try:
        written = fields["base"]
        inner["base"] = written if isinstance(written, Defense) else _base(written, folder)
        kind.fits(inner["base"])
    except BadInput as error:
        errors += [f".base{line}" if line.startswith(".") else f".base: {line}" for line in error.lines]
    try:
        made = build(kind, {key: value for key, value in fields.items() if key != "base"})
    except BadInput as error:
        raise BadInput(*error.lines, *errors) from None
    if errors:
        raise BadInput(*errors)
    return made.model_copy(update=inner)


def _base(written: Any, folder: Path) -> Defense:
    entry = _entry(written)
    return defended(defense(defense_file(entry, folder)), entry.fields, folder)


def _entry(written: Any) -> Defended:
    """What a `base` says."""
    if not isinstance(written, dict):
        raise BadInput(f'should be a table, base = {{ name = "pgd-at" }}, not {written!r}')
    try:
        entry = validate(Defended, written)
    except ValidationError as error:
        raise BadInput(*complaints(error, Defended)) from None
    for key in ("label", "training", "collect"):
        if key in written:
            raise BadInput(f"{key} stands beside the name of the outer defense")
    return entry


def defense_files(entry: Defended, folder: Path) -> list[Path]:
    """The files behind a `[[defense]]`: its own, and that of its base."""
    file = defense_file(entry, folder)
    if not issubclass(defense(file), Wrapper):
        return [file]
    return [file, *defense_files(_entry(entry.fields.get("base", {"name": USUAL})), folder)]


def defense_table(made: Defense, written: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a job: name, file as it is `written`, digest, all fields filled in, and the same of a base."""
    found = {"name": made.name, "file": written.get("file"), "sha256": made.sha256, **made.plain()}
    if isinstance(made, Wrapper):
        found["base"] = defense_table(made.base, written.get("base", {}))
    return found


def named(kind: type[P], fields: Mapping[str, Any], base: Path = Path()) -> P:
    """A part from a table that holds its name, `{"name": "pgd", "steps": 20}`, and its file where it is one's own."""
    return build(chosen(kind, fields, base), _fields(fields))


def _fields(written: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the part itself."""
    source = ("name", "file", "sha256") if "file" in written else ("name",)
    return {key: value for key, value in written.items() if key not in source}


def collectors(tables: Mapping[str, Mapping[str, Any]], base: Path = Path()) -> list[Collector]:
    """The collectors of a `[collect]` table, own files relative to `base`. Raises BadInput with all that is wrong."""
    made: list[Collector] = []
    errors: list[str] = []
    for name, fields in tables.items():
        try:
            kind = chosen(Collector, {**fields, "name": name}, base)
        except BadInput as error:
            errors += [f"collect: {line}" for line in error.lines]
            continue
        try:
            made.append(build(kind, _fields(fields), f"collect.{name}"))
        except BadInput as error:
            errors += error.lines
    if errors:
        raise BadInput(*errors)
    return made


def plain(made: Part, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The table that `named` builds this part from; `written` is the user's, which knows the file of one's own."""
    return {"name": made.name, **table(made, written)}


def table(made: Part, written: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The same without the name, where that stands outside."""
    source = {"file": (written or {}).get("file"), "sha256": made.sha256} if made.sha256 else {}
    return {**source, **made.plain()}


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
    """The defense of a resolved job. Raises BadInput when its file, or its base's, is not the one that was planned."""
    return _planned(job.defense, base)


def _planned(table: Mapping[str, Any], folder: Path) -> Defense:
    entry = Defended(name=None if table["file"] else table["name"], file=table["file"])
    file = defense_file(entry, folder)
    if digest(file) != table["sha256"]:
        raise BadInput(f"{file}: changed since the plan was made; run again")
    kind, fields = defense(file), {key: value for key, value in table.items() if key not in ("name", "file", "sha256")}
    if issubclass(kind, Wrapper):
        fields["base"] = _planned(fields["base"], folder)
    return defended(kind, fields, folder)


def digest(file: Path) -> str:
    """The digest of a defense's code. Raises BadInput when its file cannot be read."""
    try:
        return code(file.read_bytes())
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from None
