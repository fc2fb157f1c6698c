"""Whose defense a record is of, where that is one of the suite's."""

from __future__ import annotations

import ast
from functools import cache

from advbench.board.overview import table
from advbench.identity import code
from advbench.record import Record
from advbench.task import shipped


def paper(record: Record) -> str | None:
    """Authors, venue and number; None for a file of one's own, or of a version that is not the one here."""
    digest = table(record.job, "defense").get("sha256")
    return _papers().get(digest) if isinstance(digest, str) else None


@cache
def _papers() -> dict[str, str]:
    """By the digest of a baseline's code; read and not run, for a board loads no torch."""
    found: dict[str, str] = {}
    for file in shipped("baselines").glob("*.py"):
        source = file.read_bytes()
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Assign(targets=[ast.Name(id="paper")], value=ast.Constant(value=str(words))):
                    found[code(source)] = words
                case _:
                    pass
    return found
