"""The plan: what would run, what is done already, what cannot run here and why.

A `Job` is one task x defense x seed with every default filled in. Its id is a hash of everything that can
change its result, so a finished job is never run twice and a changed one always is. Nothing here imports
torch: a resolved plan is kept on disk, so that an unchanged one costs a few file stats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import advbench
from advbench.experiment import Experiment
from advbench.files import write_bytes
from advbench.identity import digest
from advbench.index import Index
from advbench.recipe import Training
from advbench.record import load, save, whole
from advbench.spec import Spec
from advbench.task import Data, Evaluation, ThreatModel, placeless

PROTOCOL = 2
"""Raised when the results of training change; a golden test fails when they change and this did not."""
EVALUATION_PROTOCOL = 3
"""The same for the evaluation: weights that were trained under the same `PROTOCOL` need not be trained again."""


CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
"""What cuBLAS has to find in its environment from the start to repeat itself, as its manual says."""


def _nameless(defense: dict[str, Any]) -> dict[str, Any]:
    """The table of a defense, and of the base in it, without name and place; what is in the file is in its digest."""
    kept = {k: v for k, v in defense.items() if k not in ("name", "file")}
    # A base has a digest; a field of that name that is no base has none.
    base: Any = kept.get("base")
    return kept | {"base": _nameless(base)} if isinstance(base, dict) and "sha256" in base else kept


def _files(value: Any) -> list[str]:
    """Every `file` in tables."""
    if isinstance(value, list):
        return [file for one in cast("list[Any]", value) for file in _files(one)]
    if not isinstance(value, dict):
        return []
    table = cast("dict[str, Any]", value)
    mine = [table["file"]] if isinstance(table.get("file"), str) else []
    return mine + _files(list(table.values()))


class Job(Spec):
    """One task x defense x seed, fully resolved; it goes into the record as it is."""

    task: str
    title: str
    label: str
    seed: int
    data: Data
    data_sha256: str
    model: dict[str, Any]
    threat: ThreatModel
    training: Training
    evaluation: Evaluation
    defense: dict[str, Any]
    """name, file (as the task writes it, or null), sha256 of its code as `identity.code` has it, and its fields."""
    deviations: dict[str, Any] = {}
    """Fields of `training` that this defense changed."""
    collect: dict[str, Any] | None = None
    """The fields of each collector by its name; None for none."""
    threads: int
    accelerator: bool
    deterministic: bool | None = None
    """On an accelerator too; None where nobody asked."""
    protocol: int = PROTOCOL
    evaluation_protocol: int = EVALUATION_PROTOCOL

    @property
    def path(self) -> str:
        """`task/label-sN`: where its files lie and how `--only` names it."""
        return f"{self.task}/{self.label}-s{self.seed}"

    @property
    def subject(self) -> str:
        """What it is that was tried: the defense, by its name."""
        return str(self.defense["name"])

    def _training(self) -> dict[str, Any]:
        """What the weights depend on; names, the other seeds and the checkpoint interval change nothing."""
        plain = self.plain()
        training = {k: v for k, v in plain["training"].items() if k not in ("seeds", "checkpoint_minutes")}
        # Where and how images are read changes nothing but them, and their digest is in the id.
        data = {k: v for k, v in plain["data"].items() if k not in ("path", "size", "test")}
        if data["unlabelled"]:
            data["unlabelled"] = data["unlabelled"]["count"]
        defense = _nameless(plain["defense"])
        names = ("seed", "data_sha256", "model", "threat", "threads", "deterministic", "protocol")
        kept = {k: plain[k] for k in names}
        return {**kept, "training": training, "data": data, "defense": defense}

    @property
    def train_id(self) -> str:
        """Names the trained weights: jobs that differ only in their evaluation share them."""
        return digest(self._training())

    @property
    def shared_id(self) -> str:
        """`train_id` whatever the number of processes: what a checkpoint holds can be gone on with by more or fewer."""
        training = self._training()
        defense = {k: v for k, v in training["defense"].items() if k != "processes"}
        return digest(training | {"defense": defense})

    @property
    def judged_id(self) -> str:
        """Names the verdicts: jobs that differ only in what they collect afterwards share them."""
        return digest(self._judged())

    @property
    def id(self) -> str:
        """Names the result."""
        collect = {name: placeless(table) for name, table in (self.plain()["collect"] or {}).items()} or None
        return digest(self._judged() | {"collect": collect})

    def _judged(self) -> dict[str, Any]:
        evaluation = {k: v for k, v in self.plain()["evaluation"].items() if k != "batch"}
        evaluation["attacks"] = [placeless(attack) for attack in evaluation["attacks"]]
        judged = {"test": self.data.test, "evaluation": evaluation, "evaluation_protocol": self.evaluation_protocol}
        return self._training() | judged


class Work(Spec):
    """What a job will do, in example passes, forward and backward together."""

    train: float
    validation: float
    attack: float
    """A guess; records of like jobs know better."""
    collect: float
    """A guess, too, of what collectors take along the training and afterwards."""
    test: int
    """Examples that are attacked."""
    adversarial: bool
    """Of the defense: how much of the attack meets something that still stands."""


class Item(Spec):
    """A line of the plan."""

    task: str
    label: str
    seed: int
    base: Path
    """The folder of the task file: defense files are relative to it."""
    job: Job | Experiment | None = None
    """None when it cannot even be resolved (missing data)."""
    seconds: float = 0
    """Estimate of the job's time on one worker."""
    records: int = 0
    """From how many earlier records; 0: from the speed of its model, measured here."""
    work: Work | None = None
    processes: int = 1
    """That share its training, each on a device of its own."""
    minutes: float | None = None
    """After which it is ended and FAILED; None for no limit."""
    memory_gib: float | None = None
    """Likewise of memory, of all its processes together."""
    memory: int | None = None
    """Bytes at its peak, of an accelerator's where it runs on one, as records of jobs like it say; None for unknown."""
    skip: str = ""
    """Why it cannot run here."""
    cached: bool = False

    @property
    def path(self) -> str:
        return f"{self.task}/{self.label}-s{self.seed}"

    @property
    def state(self) -> str:
        return "cached" if self.cached else "skip" if self.skip else "run"

    @property
    def own_files(self) -> list[str]:
        """The user's own defenses, attacks, collectors or study, which it runs: relative to `base`."""
        return _files(self.job.plain()) if self.job else []

    def matches(self, pattern: str) -> bool:
        """Whether `--only pattern` means this line: a case-sensitive glob on four names."""
        names = (self.task, self.label, f"{self.task}/{self.label}", self.path)
        return any(fnmatchcase(name, pattern) for name in names)


@dataclass(frozen=True)
class Resolved:
    """A task file's lines and the files they depend on; a skipped task has lines without jobs."""

    items: list[Item]
    watched: list[Path]


def record_folder(results: Path, path: str) -> Path:
    """Where the record of `task/label-sN` lies: small files, worth committing."""
    return results / "records" / path


def run_folder(results: Path, path: str) -> Path:
    """Where a job's weights, checkpoint, journal and log lie: large files of one machine."""
    return results / "runs" / path


def known(results: Path, index: Index | None = None) -> dict[str, Path]:
    """The folder of every finished job in `results`, by id."""
    found: dict[str, Path] = {}
    for path, entry in (index or Index(results)).all():
        if entry.ok and entry.whole:
            found.setdefault(entry.id, record_folder(results, path))
    return found


def adopt(item: Item, results: Path, found: Mapping[str, Path]) -> Item:
    """Take over the record of the same job under another task's or label's name, if there is one in `found`."""
    if item.cached or item.job is None or item.job.id not in found:
        return item
    folder = found[item.job.id]
    record = load(folder / "record.json")
    if not whole(record, folder):
        return item
    beside = {name: (folder / name).read_bytes() for name in record.files}
    names = {"task": item.task, "label": item.label, "job": item.job.plain(), "defense": item.job.subject}
    save(record.model_copy(update=names), record_folder(results, item.path), beside)
    return finished(item, results)


def finished(item: Item, results: Path, index: Index | None = None) -> Item:
    """The item, marked as cached when a whole record of this very job lies in `results`."""
    if item.job is None:
        return item
    entry = (index or Index(results)).entry(item.path)
    done = entry is not None and entry.ok and entry.whole and entry.id == item.job.id
    return item.model_copy(update={"cached": True, "skip": ""}) if done else item


Stat = tuple[str, int, int]
"""Path, size, time of the last change."""


class _Kept(Spec):
    """A resolved task file on disk. One value, so that a thousand lines are read in one go."""

    watched: list[Stat]
    items: list[Item]


def _stats(files: Iterable[Path]) -> list[Stat]:
    found: list[Stat] = []
    for file in files:
        try:
            stat = file.stat()
            found.append((str(file), stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((str(file), -1, -1))
    return found


def _cache_file(results: Path, task: Path, root: Path) -> Path:
    return results / "runs" / "plans" / f"{digest([str(task.resolve()), str(root.resolve()), advbench.__file__])}.json"


def remember(results: Path, task: Path, root: Path, items: list[Item], watched: Iterable[Path], began: int) -> None:
    """Keep a resolved task until one of the `watched` files changes.

    `began`: when its resolving did, by `time.time_ns`. A file that was written later may not be what was read: then
    nothing is kept.
    """
    # Its whole path: whoever looks through the folder may stand elsewhere.
    kept = _Kept(watched=_stats([task.resolve(), *watched]), items=items)
    if any(changed >= began for _, _, changed in kept.watched):
        return
    write_bytes(_cache_file(results, task, root), kept.model_dump_json(by_alias=True).encode())


def recall(results: Path, task: Path, root: Path) -> list[Item] | None:
    """The resolved lines of `task`, when nothing they depend on has changed since `remember`."""
    try:
        kept = _Kept.model_validate_json(_cache_file(results, task, root).read_bytes(), strict=True)
        return kept.items if kept.watched == _stats(Path(path) for path, _, _ in kept.watched) else None
    except (OSError, ValueError):
        return None  # absent or from another version: the plan is resolved again


def order(items: Iterable[Item]) -> list[Item]:
    """The cheapest job first, so that a mistake shows early; then longest first, so that no worker ends alone."""
    by_cost = sorted(items, key=lambda item: (-item.seconds, item.path))
    return by_cost[-1:] + by_cost[:-1]
