"""What the driver and the nodes of a Ray cluster say to each other."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import advbench
from advbench.execute.torchrun import Place
from advbench.plan import Item


@dataclass(frozen=True)
class Told:
    """What the driver says to every node."""

    results: Path
    root: Path
    device: str
    """cpu or cuda; which one it is, Ray says."""
    token: Path
    """A file of the driver's in `results`, by whose content a node knows the folder."""
    secret: bytes
    versions: Mapping[str, str]
    environment: Mapping[str, str]
    """Of workers: what has to stand there before they load torch."""
    stop: Sequence[Any] = ()
    """A Ray object that comes when everybody has to leave; in a sequence, or Ray would wait for it."""


class Meet(NamedTuple):
    """Where the processes that share a job meet the first one, which says so itself."""

    address: str
    port: int


@dataclass(frozen=True)
class Errand:
    """A job for a node, with what it needs that may not be there."""

    item: Item
    files: Mapping[str, bytes]
    """One's own defenses, attacks and collectors, relative to the task file's folder."""
    kept: Sequence[Any] = ()
    """A Ray object: what an earlier try left, by its path in the results folder; none where there is nothing."""
    place: Place | None = None
    """Of this process, where several share the job."""
    meet: Meet | None = None


class Said(NamedTuple):
    """What a worker says of its job while it runs (`train.Tell`); "begun" first."""

    stage: str
    done: int
    total: int
    words: str


class Piece(NamedTuple):
    """A file that a worker wrote where the driver does not see it."""

    path: str
    """In the results folder."""
    content: bytes
    grows: bool
    """Whether this is only what came to it since the last piece."""


class Done(NamedTuple):
    """A job has its record; with it come the files beside it, unless the driver sees them."""

    status: str
    words: str
    record: bytes
    beside: dict[str, bytes] | None


class Over(NamedTuple):
    """A worker has ended and there is no record: as it was asked to, or because of `why`."""

    why: str = ""
    again: bool = False
    """Whether another try may end better: somebody killed it, who did not say so."""
    limit: bool = False
    """Whether `why` is what it took more of than its job may."""


class Refused(NamedTuple):
    """What is no job's fault: a full disk, other versions than the driver's."""

    line: str


News = Meet | Said | Piece | Done | Over | Refused


@dataclass
class Found:
    """What a node has, asked before it gets a job."""

    versions: Mapping[str, str]
    sees: bool = True
    """The driver's results folder."""
    lacking: dict[str, str] = field(default_factory=dict[str, str])
    """Why data are not there, by `data_key`."""


def versions() -> dict[str, str]:
    """Of what all nodes need the same, or a record would depend on the node."""
    return {"Python": platform.python_version(), "advbench": advbench.__version__, "torch": version("torch")}


def differing(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str:
    """What another node has otherwise, in words; empty where nothing is."""
    other = [name for name in ours if theirs.get(name) != ours[name]]
    return ", ".join(f"{name} {theirs.get(name, 'missing')} where the driver has {ours[name]}" for name in other)


def data_key(item: Item) -> str:
    """Names the data that a job reads; empty for none."""
    data = item.job.data if item.job else None
    return data.model_dump_json(by_alias=True) if data else ""
