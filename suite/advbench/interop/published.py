"""RobustBench's entries as one file of ours, with every field as it was: published there, not measured here.

The entries lie at model_info/<dataset>/<threat model>/<ID>.json in a checkout of RobustBench/robustbench; its packages
on PyPI leave them out. Texts, names and their order survive import and export as they are, whatever they mean: some
entries hold null or fields of their own. A number keeps its value.

Tried on 42 of its files (November 2026): four of the time when they came in are not JSON, for their link has no quotes,
and are told and left out; one says the same accuracy twice, and comes back with it once; the others survive whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from advbench.files import write_bytes
from advbench.interop import model_info
from advbench.interop.about import NAME, About, of
from advbench.interop.found import find, names
from advbench.interop.model_info import dumped
from advbench.spec import BadInput, Spec, complaints, validate

SOURCE = "RobustBench model_info"
ACCURACIES = ("external", "autoattack_acc", "corruptions_acc", "corruptions_acc_2d", "corruptions_acc_3d")
"""What its boards are sorted by: the first of these that an entry has."""


class Published(Spec):
    """One entry."""

    dataset: str = Field(pattern=NAME)
    threat: str = Field(pattern=NAME)
    id: str = Field(pattern=NAME)
    """The names of its folders and its file, which its `fields` need not repeat."""
    fields: dict[str, Any]

    @property
    def board(self) -> str:
        """`cifar10/Linf`."""
        return f"{self.dataset}/{self.threat}"


class Entries(Spec):
    """The file that `advbench import` writes."""

    source: str = SOURCE
    models: tuple[Published, ...]


@dataclass(frozen=True)
class Line:
    """An entry, or a record of ours that could be one, in a board's order."""

    id: str
    here: bool
    """Measured here."""
    fields: Mapping[str, Any]

    @property
    def robust(self) -> float | None:
        """Percent, by the field that the board is sorted by."""
        return next((number(self.fields[name]) for name in ACCURACIES if name in self.fields), None)

    @property
    def clean(self) -> float | None:
        """Percent."""
        return number(self.fields.get("clean_acc"))


def number(value: Any) -> float | None:
    """What a field says in percent, None where it says nothing: text is in percent, a number is a fraction."""
    try:
        return float(value) if isinstance(value, str) else 100 * float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def read(path: Path) -> tuple[list[Published], list[str]]:
    """The entries of a model_info folder (or of what holds it), or of a file of ours; and a line for each file lost.

    Not every file that RobustBench has kept is JSON, and the others are no worse for that. Raises BadInput where no
    entry is left, or where the file is ours.
    """
    if path.is_file():
        try:
            return list(validate(Entries, _loaded(path)).models), []
        except ValidationError as error:
            raise BadInput(*(f"{path}: {line}" for line in complaints(error, Entries))) from None
    if not path.is_dir():
        raise BadInput(f"{path}: no such file or folder; give the model_info folder of a checkout of RobustBench")
    home = path / "model_info" if (path / "model_info").is_dir() else path
    files = sorted(home.glob("*/*/*.json"))
    if not files:
        raise BadInput(f"{path}: holds no <dataset>/<threat model>/<ID>.json; give RobustBench's model_info folder")
    entries: list[Published] = []
    lost: list[str] = []
    for file in files:
        try:
            entries.append(_entry(file))
        except BadInput as error:
            lost += error.lines
    if not entries:
        raise BadInput(*lost)
    return entries, lost


def save(entries: Sequence[Published], file: Path) -> None:
    """Write them as one file. Raises BadInput where it is a folder, or cannot be written."""
    if file.is_dir():
        raise BadInput(f"{file}: a folder; -o takes the file that the entries go into")
    try:
        write_bytes(file, dumped(Entries(models=tuple(entries)).plain()))
    except OSError as error:
        raise BadInput(f"{file}: cannot be written: {error.strerror or error}; choose another file with -o") from None


def write(entries: Iterable[Published], out: Path) -> list[str]:
    """Write them as RobustBench keeps them, a file each; returns what was written in a line."""
    written = 0
    for one in entries:
        write_bytes(out / one.dataset / one.threat / f"{one.id}.json", dumped(one.fields))
        written += 1
    return [f"{out}: {written} entries of RobustBench"]


def lines(entries: Iterable[Published], board: str, beside: Path | None, told: Mapping[str, About]) -> list[Line]:
    """The `board` as RobustBench sorts it, and in it the records of `beside` that it would take. Raises BadInput."""
    found = [Line(one.id, here=False, fields=one.fields) for one in entries if one.board == board]
    for folder, record in find(beside).finished() if beside is not None else ():
        try:
            theirs = model_info.board(record)
        except BadInput:
            continue  # not the same measurement
        if theirs == board:
            fields = model_info.entry(record, of(told, record.label))
            found.append(Line("/".join(names(folder)), here=True, fields=fields))
    return sorted(found, key=lambda line: (line.robust is None, -(line.robust or 0), line.id))


def _entry(file: Path) -> Published:
    fields = _loaded(file)
    place = {"dataset": file.parent.parent.name, "threat": file.parent.name, "id": file.stem}
    try:
        return validate(Published, {**place, "fields": fields})
    except ValidationError as error:
        raise BadInput(*(f"{file}: {line}" for line in complaints(error, Published))) from None


def _loaded(file: Path) -> dict[str, Any]:
    try:
        found: Any = json.loads(
            file.read_bytes(), object_pairs_hook=_once, parse_float=_float, parse_constant=_constant
        )
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not an entry: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise BadInput(f"{file}: not an entry: {type(found).__name__}, not an object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a name stand twice, and then only one of the two survives: the same, or it would not be known which."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise ValueError("a field stands there twice, with different values")
    return found


def _float(spelled: str) -> float:
    if not math.isfinite(found := float(spelled)):
        raise ValueError(f"{spelled} is no number that can be kept")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
