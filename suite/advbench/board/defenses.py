"""What the suite's own defenses say of themselves, read from their files and not run: a board loads no torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from typing import Any

from advbench.identity import code
from advbench.record import Epoch, Record
from advbench.task import shipped

Kept = tuple[float, float]


def by_pgd(epoch: Epoch) -> Kept:
    """As training chooses the checkpoint of a defense that trains against the threat: the best, then the earlier."""
    return epoch.pgd, epoch.clean


def by_clean(epoch: Epoch) -> Kept:
    """As it chooses that of any other."""
    return epoch.clean, epoch.pgd


def paper(record: Record) -> str | None:
    """Authors, venue and number; None for a file of one's own, or of a version that is not the one here."""
    digest = _table(record.job.get("defense")).get("sha256")
    return _papers().get(digest) if isinstance(digest, str) else None


def adversarial(record: Record) -> bool:
    """Whether it trained against the threat, as a defense's `adversarial` has it.

    A wrapper is what its base is. A defense that is none of the suite's says it by the checkpoint that was kept, where
    the two rules differ.
    """
    base = _table(_table(record.job.get("defense")).get("base")).get("name")
    name = base if isinstance(base, str) else record.defense
    if name in _kinds():
        return _kinds()[name]
    history = record.history
    kept = [max(history, key=rule).epoch if history else None for rule in (by_pgd, by_clean)]
    return kept[0] == kept[1] or record.best_epoch != kept[1]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@cache
def _papers() -> dict[str, str]:
    """By the digest of a baseline's code."""
    return {code(source): said["paper"] for source, said in _baselines() if "paper" in said}


@cache
def _kinds() -> dict[str, bool]:
    """By the name of a baseline."""
    return {said["name"]: said.get("adversarial", True) for _, said in _baselines() if "name" in said}


def _baselines() -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Of each file its content, and the constants that it gives names."""
    for file in sorted(shipped("baselines").glob("*.py")):
        source, said = file.read_bytes(), dict[str, Any]()
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Assign(targets=[ast.Name(id=field)], value=ast.Constant(value=value)):
                    said[field] = value
                case _:
                    pass
        yield source, said
