"""A record as the board reads it (`Row`), and the seeds of one label together (`Group`).

Nothing is dropped on the way: a failed job is a row, a flagged seed stays in its group's mean and is counted in its
notes, and a record whose settings are not those of its neighbours says so.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from statistics import fmean

from advbench.board import settings
from advbench.external import external
from advbench.record import Accuracy, Flag, Record

MARK = "†"
"""Stands beside a number that should not be read without its notes."""

PLAIN = {
    "catastrophic-overfitting": "collapsed",
    "robust-overfitting": "overfitted robustly",
    "zero-gradient": "masked gradients",
    "pgd-gap": "withstood PGD and fell to stronger attacks",
    "stopped": "was not attacked to the end, so it has no robust accuracy",
}
"""What people say for a flag; any other is said by its name."""


def radius(eps: str) -> Fraction:
    """A radius as a number, for order and for drawing; text that is no number, or one that no float holds, is 0."""
    try:
        # By way of a float, for a fraction of "1e999999999" would have as many digits.
        found = Fraction(eps) if "/" in eps else Fraction(repr(float(eps)))
        float(found)
    except (ValueError, ZeroDivisionError, OverflowError):
        return Fraction(0)
    return found


def outward(eps: Iterable[str]) -> list[str]:
    """Radii from the smallest; equal ones ("1/10", "2/20") by their text."""
    return sorted(eps, key=lambda text: (radius(text), text))


@dataclass(frozen=True)
class Note:
    """One remark in a group's row; `kind` is `failed`, `flag` or `setting`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Row:
    """One record as the board reads it."""

    record: Record
    unlike: tuple[str, ...] = ()
    """Settings that are not those of the task's other records, each as `threat.eps 8/255, not 3/20`."""

    @property
    def clean(self) -> Accuracy | None:
        return self.record.scores.clean if self.record.scores else None

    @property
    def robust(self) -> Accuracy | None:
        return self.record.scores.robust if self.record.scores else None

    @property
    def extra_data(self) -> str | None:
        """What pretrained weights saw beside the training data; None when training began from scratch."""
        model = self.record.job.get("model") or {}
        return model.get("extra_data") if isinstance(model, dict) else None

    @property
    def elsewhere(self) -> str | None:
        """The model as `advbench evaluate` was asked for it; None for a training of ours."""
        return str(self.record.job["model"]["name"]) if external(self.record.defense, self.record.job) else None

    @property
    def failed(self) -> bool:
        return self.record.status == "failed"

    @property
    def flags(self) -> list[str]:
        return sorted({flag.name for flag in self.record.flags})

    @property
    def marked(self) -> bool:
        """Whether a reader should look at the notes before the number."""
        return bool(self.record.flags or self.unlike)

    @property
    def remark(self) -> str:
        """`seed 1: collapsed`, for whoever points at the number."""
        words = [*(PLAIN.get(name, name) for name in self.flags), *(["other settings"] if self.unlike else [])]
        return f"seed {self.record.seed}" + (f": {', '.join(words)}" if words else "")

    @property
    def error(self) -> str:
        """What went wrong, in a line."""
        return self.record.reason

    def measure(self, collector: str, name: str) -> float | None:
        found = self.record.measures.get(collector, {}).get(name)
        return found.value if found else None

    def rung(self, name: str) -> float | None:
        return self.record.scores.attacks.get(name) if self.record.scores else None

    @property
    def curve(self) -> list[tuple[str, float, float]]:
        """(eps as written, eps, accuracy) from clean outwards; empty when no curve was measured."""
        if not self.record.scores or not self.record.scores.curve:
            return []
        points = self.record.scores.curve
        measured = [(eps, float(radius(eps)), points[eps]) for eps in outward(points)]
        return [("0", 0.0, self.record.scores.clean.accuracy), *measured]

    @property
    def passes(self) -> int:
        """Example passes of training, forward and backward."""
        return self.record.cost.train_forward + self.record.cost.train_backward

    @property
    def name(self) -> str:
        return f"{self.record.task}/{self.record.label}-s{self.record.seed}"

    @property
    def task_file(self) -> str:
        """Its name; where it lay no record knows. A sweep's tasks (`t@eps=4`) come from one file."""
        return f"{self.record.task.partition('@')[0]}.toml"

    @property
    def command(self) -> str:
        """What makes the record, in the folder of its task file."""
        if self.elsewhere:
            file = self.record.job["model"].get("weights")
            weights = ["--weights", str(file)] if file else []
            only = ["--only", self.record.task] if "@" in self.record.task else []
            words = ["advbench", "evaluate", self.elsewhere, *weights, "--task", self.task_file, *only]
            return shlex.join([*words, "--label", self.record.label, *self._how])
        return shlex.join(["advbench", "run", self.task_file, "--only", self.name])

    @property
    def _how(self) -> list[str]:
        """The further options of an `advbench evaluate` that change what it does."""
        job, until = self.record.job, self.record.job.get("until") or {}
        said = {"--checkpoint": job["model"].get("checkpoint"), "--examples": job.get("examples")}
        if until:
            # The job holds the digest of the other record; where that lay is only said, and by older records is not.
            against = (self.record.provenance.get("until") or {}).get("against", "RECORD")
            said |= {"--until": "decided", "--against": against if until.get("against") else None}
            said |= {
                f"--{name}": f"{100 * until[name]:g}" for name in ("margin", "width") if until.get(name) is not None
            }
        words = [word for option, value in said.items() if value is not None for word in (option, str(value))]
        return words + (["--no-stop"] if job["evaluation"].get("stop") is False else [])


@dataclass(frozen=True)
class Group:
    """The seeds of one label."""

    label: str
    rows: tuple[Row, ...]

    @property
    def trained(self) -> bool:
        """Whether any of it was trained here."""
        return any(row.elsewhere is None for row in self.rows)

    def _mean(self, value: Callable[[Row], float | None]) -> float | None:
        values = [v for row in self.rows if not row.failed and (v := value(row)) is not None]
        return fmean(values) if values else None

    @property
    def robusts(self) -> list[float]:
        return [row.robust.accuracy for row in self.rows if row.robust and not row.failed]

    @cached_property
    def clean(self) -> float | None:
        return self._mean(lambda row: row.clean.accuracy if row.clean else None)

    @cached_property
    def robust(self) -> float | None:
        """The mean over every seed that was scored, flagged ones included."""
        return fmean(self.robusts) if self.robusts else None

    @property
    def lowest(self) -> float | None:
        return min(self.robusts, default=None)

    @property
    def highest(self) -> float | None:
        return max(self.robusts, default=None)

    @property
    def pgd(self) -> float | None:
        return self._mean(lambda row: row.rung("pgd"))

    def measures(self, collector: str, name: str) -> list[float]:
        """The values of its seeds; None, where one is not finite, is left out."""
        return [v for row in self.rows if not row.failed and (v := row.measure(collector, name)) is not None]

    # A cost of nought is one that nobody measured (a model trained elsewhere), not a free training.
    @property
    def train_seconds(self) -> float | None:
        return self._mean(lambda row: row.record.cost.train_seconds or None)

    @property
    def train_passes(self) -> float | None:
        return self._mean(lambda row: row.passes or None)

    @property
    def marked(self) -> bool:
        """Whether the mean holds a marked seed or lacks a failed one."""
        return any(row.marked or row.failed for row in self.rows)

    @property
    def flags(self) -> dict[str, int]:
        """On how many seeds each flag was raised."""
        return dict(sorted(Counter(name for row in self.rows for name in row.flags).items()))

    @property
    def notes(self) -> list[Note]:
        failed = Counter(row.error for row in self.rows if row.failed)
        changed = Counter(settings.said(row.record.job.get("deviations") or {}) for row in self.rows)
        unlike = Counter("; ".join(row.unlike) for row in self.rows if row.unlike)
        extra = sorted({row.extra_data for row in self.rows if row.extra_data})
        elsewhere = sorted({row.elsewhere for row in self.rows if row.elsewhere})
        refused = [row.record.scores.rejected for row in self.rows if row.record.scores]
        shares = [share.accuracy for share in refused if share]
        of = f"of {len(self.rows)}"
        return [
            *(Note("failed", f"{n} {of} FAILED: {error}") for error, n in sorted(failed.items())),
            *(Note("flag", f"{n} {of} {self._said(name)}") for name, n in self.flags.items()),
            *(Note("setting", f"trained elsewhere: {model}") for model in elsewhere),
            *([Note("setting", f"refuses {fmean(shares):.1%} of untouched images")] if shares else []),
            *(Note("setting", f"pretrained start, extra data: {data}") for data in extra),
            *(Note("setting", f"trained differently: {fields}") for fields in sorted(changed) if fields),
            *(Note("setting", f"{n} {of} under other settings: {text}") for text, n in sorted(unlike.items())),
        ]

    def _said(self, name: str) -> str:
        """A flag in plain words: `overfitted robustly: PGD fell from 52.1% to 44.0%`, for every seed that has it."""
        words = PLAIN.get(name, name)
        raised = [flag for row in self.rows for flag in row.record.flags if flag.name == name]
        falls = [fall for flag in raised if (fall := _fall(flag))] if name == "robust-overfitting" else []
        return f"{words}: PGD fell {', '.join(falls)}" if falls else words


def _fall(flag: Flag) -> str:
    """`from 52.1% to 44.0%`; nothing where the evidence lacks the numbers."""
    best, last = flag.evidence.get("best"), flag.evidence.get("last")
    if not isinstance(best, float | int) or not isinstance(last, float | int):
        return ""
    return f"from {best:.1%} to {last:.1%}"
