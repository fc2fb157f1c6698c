"""Records: what a job leaves behind, and the files that hold it.

A record is `record.json` with `examples.parquet` and `adversarial.safetensors` beside it, and `measures.safetensors`
where something was collected. The JSON is the last to be replaced and carries the digests of the others, so a record is
whole, absent or known to be neither. Numbers are numbers, accuracies are fractions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from advbench.files import as_json, write_together
from advbench.findings import Findings
from advbench.seal import SEAL, sealed, unbroken
from advbench.spec import BadInput, Spec, complaints, read, read_json, validate

SCHEMA = 1
"""Raised when the meaning of a record's fields changes; an older one is upgraded or refused by name."""


class Accuracy(Spec):
    """A share of `n` examples with its 95 % Wilson interval."""

    accuracy: float
    low: float
    high: float
    n: int
    protocol: str | None = None


class Scores(Spec):
    """What one set of weights withstood."""

    clean: Accuracy
    rejected: Accuracy | None = None
    """Share of untouched examples that the model's detector refuses; None where it has none."""
    robust: Accuracy | None = None
    """After the whole ladder: the per-example worst case. None where the ladder was not climbed to its end."""
    attacks: dict[str, float] = {}
    """Accuracy after each rung, cumulative."""
    alone: dict[str, float] = {}
    """Accuracy under each attack alone."""
    alone_n: dict[str, int] = {}
    """On how many examples each of those was measured."""
    curve: dict[str, float] = {}
    """What stands at other radii: neither a rung nor PGD-20 from the radius before broke it there."""
    corruptions: dict[str, dict[str, float]] = {}
    """Accuracy by common corruption and severity; no part of robust accuracy."""
    distance: float | None = None
    """At most the median distance of a correct example to the nearest point that fools the model, in the threat's norm;
    None where for half of them no such point is known."""


class Measure(Spec):
    """One number that a collector found; None where it is not finite or does not exist."""

    value: float | None
    unit: str
    meaning: str


class Cost(Spec):
    """What the result cost: its example passes (redone work does not count, nor do collectors'), seconds, memory.

    The peak memory is the worker process's, which may have had other jobs before, or on the CPU the largest one's of
    those that shared the job here. On an accelerator a shared job's is only a lower bound, unless torchrun started it:
    then it is the first process's.

    Joules are the accelerator's from the first step to the last measure, where it has a meter (`energy`); null where
    another process had it too, several shared the job, or it was interrupted. Blocks of its evaluation that an idle
    device took, and collectors that were asked for afterwards, are not in them.
    """

    train_seconds: float = 0
    eval_seconds: float = 0
    collect_seconds: float = 0
    train_forward: int = 0
    train_backward: int = 0
    forward: int = 0
    backward: int = 0
    peak_memory_bytes: int = 0
    joules: float | None = None


class Flag(Spec):
    """Something that looks wrong, with the numbers that say so."""

    name: str
    message: str
    evidence: dict[str, Any] = {}


class Epoch(Spec):
    """One line of the training history; accuracies on validation, None where not finite."""

    epoch: int
    loss: float | None
    clean: float
    fgsm: float
    pgd: float
    top_class: float
    """Share of the most predicted class."""
    eps: float
    lr: float
    seconds: float
    forward: int
    backward: int
    extra: dict[str, float] = {}
    """What the defense itself reports."""
    measures: dict[str, dict[str, float | None]] | None = None
    """By collector, then by name: of the weights and the examples that the accuracies are of, where that was asked."""
    collect_seconds: float | None = None

    @model_serializer(mode="wrap")
    def _told(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Of most epochs nothing is collected, and such a line stays as short as it was in older records.
        return {k: v for k, v in told(self).items() if v is not None or k not in ("measures", "collect_seconds")}


class Record(Spec):
    """One job's outcome."""

    schema_version: int = Field(default=SCHEMA, alias="schema")
    id: str
    task: str
    defense: str
    label: str
    seed: int
    status: Literal["ok", "failed"]
    job: dict[str, Any]
    scores: Scores | None = None
    checkpoints: dict[str, Scores] = {}
    best_epoch: int | None = None
    history: tuple[Epoch, ...] = ()
    cost: Cost = Cost()
    flags: tuple[Flag, ...] = ()
    measures: dict[str, dict[str, Measure]] = {}
    """By collector, then by name: of the weights that `scores` are of."""
    measure_notes: dict[str, tuple[str, ...]] = {}
    """By collector: on how many examples, what does not apply and why, what failed; of the history's measures too."""
    provenance: dict[str, Any] = {}
    files: dict[str, str] = {}
    """sha256 of each file beside the record."""
    findings: Findings | None = None
    """Of a study's: its claims and how they did with this seed."""
    error: str | None = None
    """The traceback of a failed job."""
    sha256: str | None = None
    """The seal of all else that the file says; records of an earlier version have none."""

    @model_serializer(mode="wrap")
    def _told(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # The record of a defense has none, and says nothing of it.
        return {k: v for k, v in told(self).items() if v is not None or k != "findings"}

    @property
    def of_study(self) -> bool:
        """Whether it is an experiment's, and no defense's."""
        return "study" in self.job

    @property
    def reason(self) -> str:
        """The line of the traceback that names the error; libraries may write more lines below it."""
        lines = (self.error or "").strip().splitlines()
        named = [
            line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|Diverged)\b", line)
        ]
        return (named or lines or ["no traceback was kept"])[-1].strip()


MEASURES = "measures.safetensors"
"""The arrays behind a record's measures, as COLLECTOR/NAME."""
BESIDE = ("examples.parquet", "adversarial.safetensors", MEASURES)
"""What may lie beside a record."""


def save(record: Record, folder: Path, beside: dict[str, bytes] | None = None) -> Record:
    """Write `record` and the files `beside` it into `folder`; returns it with their digests.

    What was there is replaced once all of it is on the disk, so that none is lost to one that is full. A crash between
    two of the files leaves an old JSON beside new tables, which `whole` sees.
    """
    beside = beside or {}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(beside.items())}
    plain = record.model_copy(update={"files": digests}).plain()
    del plain[SEAL]
    plain = sealed(plain)
    write_together({folder / name: content for name, content in {**beside, "record.json": as_json(plain)}.items()})
    for old in BESIDE:
        if old not in beside:
            (folder / old).unlink(missing_ok=True)
    return record.model_copy(update={"files": digests, SEAL: plain[SEAL]})


def load(path: Path) -> Record:
    """Read one `record.json`. Raises BadInput that names what is wrong with it."""
    try:
        content = path.read_bytes()
        # A board may read ten thousand. Only one that may be wrong is read a second time, to say what is.
        record = read(Record, content)
        if record and "schema_version" in record.model_fields_set and record.schema_version == SCHEMA:
            return record
        raw = read_json(content)
        version = raw.get("schema") if isinstance(raw, dict) else None
        if version != SCHEMA:
            raise BadInput(f"{path}: record schema {version!r}, this advbench reads {SCHEMA}; run its job again")
        return validate(Record, raw)
    except RecursionError:  # the parser goes deeper than what writes it again
        raise BadInput(f"{path}: not a record: nested too deeply") from None
    except ValidationError as error:
        raise BadInput(*(f"{path}: {line}" for line in complaints(error, Record))) from None
    except (OSError, ValueError) as error:  # no JSON, no UTF-8, or a number that not every reader can hold
        raise BadInput(f"{path}: not a record: {error}") from None


def load_all(folder: Path, task: str | None = None) -> Iterator[Record]:
    """Every record under `folder`, or of one `task` there, in the order of their paths."""
    files = folder.glob("*/*/record.json") if task is None else (folder / task).glob("*/record.json")
    yield from map(load, sorted(files))


def whole(record: Record, folder: Path) -> bool:
    """Whether `record` in `folder` and the files beside it are what was written."""
    try:
        if unbroken(json.loads((folder / "record.json").read_bytes())) is False:
            return False
        return all(hashlib.sha256((folder / n).read_bytes()).hexdigest() == d for n, d in record.files.items())
    except (OSError, ValueError, AttributeError):
        return False
