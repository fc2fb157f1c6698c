"""A task file: TOML in, a frozen `Task` out; everything that can be checked without torch is checked here.

What a defense, an attack or a model may be told is known only by its own class, so those tables are kept as
written (`Entry`) and `advbench.find` checks them against the class.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from advbench.recipe import Training, named
from advbench.severities import known
from advbench.spec import BadInput, Number, Spec, complaints, validate


class Entry(Spec):
    """The name of a part and that part's own fields."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Unlabelled(Spec):
    """Images whose labels no defense sees (Carmon et al. 2019, arXiv 1905.13736; Uesato et al. 2019, 1905.13725)."""

    count: int = Field(ge=1)
    path: str | None = None
    """A .npz file with an array `image`, relative to the data root; default: what the training split has left."""


class Data(Spec):
    """Which examples. Subsets belong to the task: every defense and every seed meets the same ones."""

    name: str
    path: str | None = None
    """For `image-folder` and `npz`: the folder or file, relative to the data root."""
    size: int | None = Field(default=None, ge=1)
    """For `image-folder` and `imagenet` (224): crop to this many pixels, the short side resized to 256/224 of it."""
    classes: tuple[int, ...] | None = Field(default=None, min_length=2)
    """Use only the examples of these classes, which are then called 0, 1, ...; default: all."""
    train: int | None = Field(default=None, ge=1)
    """Training examples; default: all that validation leaves."""
    validation: int | None = Field(default=None, ge=1)
    """Examples held out of the official training split to choose a checkpoint; default: a tenth, at most 1,000."""
    test: int | None = Field(default=None, ge=1)
    """Examples of the official test split; default: all."""
    order: Literal["stratified", "first"] = "stratified"
    """`stratified`: classes in proportion, drawn with `seed`; `first`: in file order, as RobustBench does."""
    seed: int = Field(default=0, ge=0)
    unlabelled: Unlabelled | None = None
    """Further training images for defenses that learn from unlabelled ones."""


class ThreatModel(Spec):
    """A norm ball in pixel units, pixels in [0, 1]."""

    norm: Literal["Linf", "L2", "L1"]
    eps: Number

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.eps <= 0:
            raise ValueError(f"eps should be above 0, not {self.eps}")
        if self.norm == "Linf" and self.eps > 1:
            raise ValueError(
                f"eps should be at most 1 in Linf, where pixels lie in [0, 1], not {self.eps}; for n of 255 write n/255"
            )
        return self


def ladder(attacks: Any) -> Any:
    """A list of attacks as tables; one from a file is called as the file is, unless its table says otherwise."""
    entries = named(attacks)
    if not isinstance(entries, tuple):
        return entries
    items: tuple[Any, ...] = entries
    return tuple(
        {"name": Path(entry["file"]).stem.replace("_", "-"), **entry}
        if isinstance(entry, dict) and isinstance(entry.get("file"), str)  # pyright: ignore[reportUnknownMemberType]
        else entry
        for entry in items
    )


def placeless(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table of a part without the path of its file; what is in the file is in its digest."""
    return {key: value for key, value in table.items() if key != "file"}


class Evaluation(Spec):
    """How the trained model is attacked."""

    attacks: tuple[Entry, ...] = (Entry(name="fgsm"), Entry(name="pgd"), Entry(name="autoattack"))
    """The ladder, cheapest first; each rung meets what still stands. One's own is a table with its `file`."""
    checkpoint: Literal["best", "last"] = "best"
    """Which weights fill `scores`; the other ones get clean and PGD-20 unless `both`."""
    both: bool = False
    curve: tuple[Number, ...] = ()
    """Radii of the robustness curve: what no rung has broken there, nor PGD-20 from the radius before."""
    corruptions: tuple[str, ...] | Literal["all"] | None = None
    """Common corruptions under which accuracy is measured too, at five severities; no part of robust accuracy."""
    alone: int = Field(default=64, ge=0)
    """Test examples on which each part of AutoAttack also runs alone, for the flags."""
    block: int = Field(default=500, ge=1)
    """Examples that share a seed and a journal entry; a part of the protocol, unlike the batch."""
    batch: int = Field(default=500, ge=1)
    """Examples a forward pass of our own attacks, fewer where memory is short; changes nothing but that."""
    seed: int = Field(default=0, ge=0)
    votes: int | None = Field(default=None, ge=1, le=1000)
    """For models that draw random numbers: passes that vote on each answer, and more than half decide."""
    distances: bool | None = None
    """true: look for the nearest fooling point of every correct example, near or far (FAB, which takes its time)."""
    stop: bool | None = None
    """false: climb the whole ladder even where its cheap rungs show a masked gradient."""

    @field_validator("attacks", mode="before")
    @classmethod
    def _names(cls, attacks: Any) -> Any:
        return ladder(attacks)

    @field_validator("attacks")
    @classmethod
    def _ladder(cls, attacks: tuple[Entry, ...]) -> tuple[Entry, ...]:
        if not attacks:
            raise ValueError("attacks should name at least one attack")
        labels = [a.fields.get("label") or a.name for a in attacks]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(f"attack '{twice[0]}' stands there twice; give one of them a label")
        return attacks

    @field_validator("corruptions", mode="before")
    @classmethod
    def _list_or_all(cls, names: Any) -> Any:
        # Before the union is tried, which would complain once for each of its members.
        if isinstance(names, str) and names != "all":
            raise ValueError(f'should be a list of names or "all", not "{names}"')
        return tuple(names) if isinstance(names, list) else names

    @field_validator("corruptions")
    @classmethod
    def _corruptions(cls, names: tuple[str, ...] | Literal["all"] | None) -> tuple[str, ...] | Literal["all"] | None:
        if isinstance(names, tuple):
            known(names)
        return names

    @field_validator("curve")
    @classmethod
    def _radii(cls, curve: tuple[Number, ...]) -> tuple[Number, ...]:
        if any(eps <= 0 for eps in curve) or len(set(curve)) < len(curve):
            raise ValueError("curve should hold distinct radii above 0")
        return tuple(sorted(curve))


class Resources(Spec):
    """What a job needs to run."""

    accelerator: bool = False
    """Skip the task, with a reason, where there is none."""
    threads: int = Field(default=1, ge=1)
    """CPU threads a job; part of the job's identity, because sums depend on it."""
    deterministic: bool = False
    """On an accelerator too, let torch take only what computes the same each time, slower; part of the job's identity.
    On the CPU that is so anyway."""
    minutes: float | None = Field(default=None, gt=0)
    """End a job that takes longer, in one try, and call it FAILED; default: wait. No part of its identity."""
    memory_gib: float | None = Field(default=None, ge=0.25)
    """End a job whose processes take more memory of the machine together, GiB, and call it FAILED; Linux only. torch
    alone takes a quarter. No part of its identity."""


class Defended(Spec):
    """One `[[defense]]`: a baseline by name or a file, and that defense's own fields."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    file: str | None = None
    label: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names paths and rows; default: the defense's name."""
    training: dict[str, Any] = {}
    """Fields of `[training]` that this defense changes; the record says so."""
    collect: dict[str, dict[str, Any]] = {}
    """Collectors for this defense beside those of `[collect]`, or in the place of one with the same name."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.file is None):
            raise ValueError("should have a name or a file, and only one of them")
        return self

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Task(Spec):
    """Everything a task file says."""

    version: Literal[1]
    title: str
    data: Data
    model: Entry
    threat: ThreatModel
    training: Training
    evaluation: Evaluation = Evaluation()
    collect: dict[str, dict[str, Any]] | None = None
    """Collectors by name, each with its own fields, and the `file` of one's own: what else to measure of the judged
    weights; default: nothing."""
    resources: Resources = Resources()
    defense: tuple[Defended, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _curve_in_range(self) -> Self:
        if self.threat.norm == "Linf" and any(eps > 1 for eps in self.evaluation.curve):
            raise ValueError("evaluation.curve: a radius should be at most 1 in Linf, where pixels lie in [0, 1]")
        return self


def shipped(folder: str) -> Path:
    """The `baselines` or `tasks` folder: inside the installed package, or beside `suite` in a checkout."""
    package = Path(__file__).parent
    inside = package / folder
    return inside if inside.is_dir() else package.parents[1] / folder


def read(path: Path) -> dict[str, Any]:
    """The tables of a task file as written. Raises BadInput with the line of a syntax error."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None


def check(raw: dict[str, Any]) -> tuple[Task | None, list[str]]:
    """The Task that `read` tables describe, or None and one line for each thing that is wrong."""
    if "study" in raw:
        return None, ["study: a study has no defenses to judge; `advbench run` and `validate` take its file"]
    try:
        return validate(Task, raw), []
    except ValidationError as error:
        return None, complaints(error, Task)


def files(paths: list[Path]) -> list[Path]:
    """The task files that `paths` mean: a file itself, a folder's own *.toml. Raises BadInput."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob("*.toml"))
            if not inside:
                raise BadInput(f"{path}: no task file (*.toml) in this folder; its subfolders are suites of their own")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise BadInput(f"{path}: no such file or folder")
    # A file named beside its own folder is meant once.
    found = list({path.resolve(): path for path in found}.values())
    names = [path.stem for path in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"two task files are called '{twice[0]}'; the name is the task's name in the results")
    return found
