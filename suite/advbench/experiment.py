"""A study as a task file asks for it, and one seed of it as a job: its record stands among those of the defenses.

[study]
name = "gan-gda"
widths = [2, 8, 32, 128, 512]
seeds = 5
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from advbench.identity import digest
from advbench.spec import Spec, complaints, validate
from advbench.sweeps import first
from advbench.task import Data, Resources

STUDY_PROTOCOL = 1
"""Raised when the results of studies change though their own files did not."""


class StudyTable(Spec):
    """`[study]`: which one, with its own fields, and how often."""

    model_config = ConfigDict(extra="allow")

    name: str | None = None
    file: str | None = None
    """A Python file with one study, relative to the task file; it is run."""
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    """Repetitions, a number for the first so many; with one there is no interval."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _first(cls, seeds: Any) -> Any:
        return first(seeds)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if (self.name is None) == (self.file is None):
            raise ValueError("should have a name or a file, and only one of them")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds should be distinct")
        return self

    @property
    def fields(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class StudyTask(Spec):
    """A task file with a study in the place of defenses."""

    version: Literal[1]
    title: str
    study: StudyTable
    data: Data | None = None
    """What it is about, for studies that look at data; default: the study's own."""
    resources: Resources = Resources()


def asked(raw: dict[str, Any]) -> bool:
    """Whether the tables of a task file ask for a study."""
    return "study" in raw


def check(raw: dict[str, Any]) -> tuple[StudyTask | None, list[str]]:
    """The StudyTask that `task.read` tables describe, or None and one line for each thing that is wrong."""
    try:
        return validate(StudyTask, raw), []
    except ValidationError as error:
        return None, complaints(error, StudyTask)


class Experiment(Spec):
    """One seed of a study, fully resolved; it goes into the record as it is."""

    task: str
    title: str
    label: str
    seed: int
    study: dict[str, Any]
    """name, file (as the task writes it, or null), sha256 of its code as `identity.code` has it, and its fields."""
    data: Data | None = None
    data_sha256: str | None = None
    instead: str | None = None
    """The data set that was asked for and is not here; `data` are the embedded digits then."""
    threads: int
    accelerator: bool = False
    deterministic: bool | None = None
    """On an accelerator too; None where nobody asked."""
    protocol: int = STUDY_PROTOCOL

    @property
    def path(self) -> str:
        """`task/label-sN`, as of any job."""
        return f"{self.task}/{self.label}-s{self.seed}"

    @property
    def subject(self) -> str:
        """What it is that was tried, as the record's `defense` says it."""
        return str(self.study["name"])

    @property
    def id(self) -> str:
        """Names the result."""
        plain = self.plain()
        kept = {key: plain[key] for key in ("seed", "data_sha256", "threads", "deterministic", "protocol")}
        # Where images are read changes nothing but them, and their digest is in the id.
        data = {k: v for k, v in (plain["data"] or {}).items() if k not in ("path", "size")} or None
        study = {key: value for key, value in plain["study"].items() if key not in ("name", "file")}
        return digest(kept | {"data": data, "study": study})
