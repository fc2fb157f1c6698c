"""What lies in a results folder, known without reading all of it again.

The records are the truth. The index keeps what a plan asks of each one (whose it is, whether it is whole, what it
cost) under the size and time of its files, and a record that was written since is read anew. It may be deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advbench.files import write_bytes
from advbench.record import SCHEMA
from advbench.seal import unbroken

VERSION = 4
"""Raised when an entry's fields change; an index of another version is made anew."""


class Cost(NamedTuple):
    """What a finished job took, and under what that may be expected again."""

    model: str
    data: str
    device: str
    threads: int
    defense: str
    engine: str
    """How training passes ran: a pass in bf16, or in a small batch, has a price of its own."""
    evaluation: str
    threat: str
    train_seconds: float
    train_passes: int
    """Forward and backward together, as everywhere below."""
    eval_seconds: float
    eval_passes: int
    test: int
    """Examples that were attacked."""
    collect: str
    """Which collectors, with their fields."""
    collect_seconds: float
    memory: int
    """Bytes at its peak."""


class Entry(NamedTuple):
    """One record."""

    id: str
    ok: bool
    """Finished, and not FAILED."""
    whole: bool
    """The files beside it are the ones it was written with."""
    cost: Cost | None = None


def canonical(value: Any) -> str:
    """Equal text for equal JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def protocol(evaluation: Mapping[str, Any]) -> str:
    """What of `[evaluation]` decides how many passes an example costs."""
    return canonical({key: value for key, value in evaluation.items() if key not in ("batch", "seed", "block")})


def engine(training: Mapping[str, Any]) -> str:
    """What of `[training]` decides what a pass costs."""
    return canonical([training.get(key) for key in ("precision", "compile", "batch", "augment")])


class Index:
    """The records of `results`, by folder."""

    def __init__(self, results: Path) -> None:
        self.folder = results / "records"
        self.file = results / "runs" / "plans" / "records.json"
        self.changed = False
        self.kept: dict[str, Any] = {}
        try:
            found = json.loads(self.file.read_bytes())
            self.kept = found["records"] if found["version"] == VERSION else {}
        except (OSError, ValueError, KeyError, TypeError):
            pass  # absent or damaged: everything is read anew

    def entry(self, path: str) -> Entry | None:
        """The record of `task/label-sN`; None where there is none that can be read."""
        folder = self.folder / path
        try:
            beside, entry = self.kept[path]
            if beside == _stats(folder, (name for name, _, _ in beside)):
                return Entry(entry[0], entry[1], entry[2], Cost(*entry[3]) if entry[3] else None)
        except (KeyError, TypeError, ValueError):
            pass  # not known, or not as this version writes it
        self.changed = self.kept.pop(path, None) is not None or self.changed
        try:
            raw = json.loads((folder / "record.json").read_bytes())
            names = ["record.json", *sorted(raw["files"])]
            beside = _stats(folder, names)  # before the files are read: one that changes meanwhile is read again
            found = _entry(raw, folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # the board says what is wrong with it
        self.kept[path] = [beside, found]
        self.changed = True
        return found

    def all(self) -> Iterator[tuple[str, Entry]]:
        """Every record that can be read, in the order of their paths."""
        paths = [f"{file.parent.parent.name}/{file.parent.name}" for file in self.folder.glob("*/*/record.json")]
        for gone in self.kept.keys() - set(paths):
            del self.kept[gone]
            self.changed = True
        for path in sorted(paths):
            if found := self.entry(path):
                yield path, found

    def save(self) -> None:
        """Keep what was read. Only for who holds the lock of the folder."""
        if self.changed:
            write_bytes(self.file, json.dumps({"version": VERSION, "records": self.kept}).encode())
            self.changed = False


def _stats(folder: Path, names: Iterator[str] | list[str]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for name in names:
        try:
            stat = os.stat(f"{folder}/{name}")  # noqa: PTH116  # a Path for each of 3,000 files takes longer than they do
            found.append([name, stat.st_size, stat.st_mtime_ns])
        except OSError:
            found.append([name, -1, -1])
    return found


def _entry(raw: dict[str, Any], folder: Path) -> Entry:
    if raw["schema"] != SCHEMA:
        raise ValueError(raw["schema"])
    try:
        beside = all(_digest(folder / name) == digest for name, digest in raw["files"].items())
        whole = beside and unbroken(raw) is not False
    except OSError:
        whole = False
    return Entry(raw["id"], raw["status"] == "ok", whole, _cost(raw) if raw["status"] == "ok" else None)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _cost(raw: dict[str, Any]) -> Cost | None:
    try:
        job, cost, about = raw["job"], raw["cost"], raw["provenance"]
        return Cost(
            model=canonical(job["model"]),
            data=job["data_sha256"],
            device=about["device"],
            threads=about["threads"],
            defense=job["defense"]["name"],
            engine=engine(job["training"]),
            evaluation=protocol(job["evaluation"]),
            threat=canonical(job["threat"]),
            train_seconds=cost["train_seconds"],
            train_passes=cost["train_forward"] + cost["train_backward"],
            eval_seconds=cost["eval_seconds"],
            eval_passes=cost["forward"] + cost["backward"],
            test=raw["scores"]["clean"]["n"],
            collect=canonical(job.get("collect")),
            collect_seconds=cost.get("collect_seconds", 0),
            memory=cost["peak_memory_bytes"],
        )
    except (KeyError, TypeError):
        return None  # it teaches nothing about costs
