"""A comparison for a person or for a script."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from advbench.compare.comparison import Comparison, Line, compare, said_p
from advbench.compare.match import pairs
from advbench.compare.read import Group, read
from advbench.spec import BadInput
from advbench.stats.ranks import holm

SHOWN = 10
"""Discordant examples that a person is shown."""


def show(a: Path, b: Path, *, as_json: bool) -> None:
    """Compare what lies at two paths. Raises BadInput."""
    ones, others = read(a), read(b)
    matched = pairs(ones, others, a, b)
    found = [compare(one, other) for one, other in matched if one.results and other.results]
    if not found:
        raise BadInput(f"{a} and {b}: every job of one side FAILED: nothing to compare")
    p = holm(np.array([float(c.main.change.p) if c.main.change else 1.0 for c in found]))
    left = _left(ones, {id(one) for one, _ in matched}), _left(others, {id(other) for _, other in matched})
    failed = [group.name for pair in matched for group in pair if not group.results]
    if as_json:
        told = [c.plain() | {"verdict": c.verdict(x), "p_together": x} for c, x in zip(found, p.tolist(), strict=True)]
        print(json.dumps({"comparisons": told, "failed": failed, "only_a": left[0], "only_b": left[1]}, indent=1))
        return
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
    if len(found) == 1:
        tell(console, found[0])
    else:
        _tell_all(console, found, p.tolist())
    if failed:
        console.print(f"not compared, every job FAILED: {', '.join(map(printable, failed))}")
    for side, names in zip("AB", left, strict=True):
        if names:
            console.print(f"only in {side}: {', '.join(map(printable, names))}")


def _left(groups: Sequence[Group], matched: set[int]) -> list[str]:
    return [group.name for group in groups if id(group) not in matched]


def tell(console: Console, comparison: Comparison) -> None:
    """One pair, line by line."""
    console.print(f"A: {printable(comparison.a.name)}\nB: {printable(comparison.b.name)}")
    table = Table()
    for name in ("", "A", "B", "B - A", "95 % interval", "p"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=bool(name))
    shown = [line for line in comparison.lines if line.kind != "measure"]
    for line in shown:
        table.add_row(*_cells(line))
    console.print(table)
    if more := len(comparison.lines) - len(shown):
        console.print(f"{more} numbers of collectors: --json has them")
    of = f"of {len(comparison.a.first.index):,} examples"
    seeds = "" if len(comparison.a.results) == len(comparison.b.results) == 1 else ", whatever the seed"
    for side, other, index in (("B", "A", comparison.gained), ("A", "B", comparison.lost)):
        some = ", ".join(map(str, index[:SHOWN])) + (", ..." if len(index) > SHOWN else "")
        console.print(f"{len(index)} {of}: {side} right and {other} wrong{seeds}{f': {some}' if index else ''}")
    for remark in comparison.remarks:
        console.print(f"note: {printable(remark)}")
    console.print(comparison.verdict())


def _tell_all(console: Console, found: Sequence[Comparison], p: Sequence[float]) -> None:
    """A line a pair, judged together."""
    table = Table()
    for name in ("", "accuracy", "A", "B", "B - A", "95 % interval", "p (Holm)", "about"):
        table.add_column(name, justify="right" if name in ("A", "B", "B - A", "95 % interval", "p (Holm)") else "left")
    for comparison, together in zip(found, p, strict=True):
        _, *cells, _ = _cells(comparison.main)
        name = printable(f"{comparison.a.task}/{comparison.a.label}")
        table.add_row(name, comparison.main.name, *cells, said_p(together), comparison.about)
    console.print(table)
    for remark in dict.fromkeys(f"{c.a.task}/{c.a.label}: {text}" for c in found for text in c.remarks):
        console.print(f"note: {printable(remark)}")
    for comparison, together in zip(found, p, strict=True):
        console.print(printable(f"{comparison.a.task}/{comparison.a.label}: ") + comparison.verdict(together))


def _cells(line: Line) -> tuple[str, ...]:
    if line.kind == "cost":
        return printable(line.name), f"{line.a:,.4g}", f"{line.b:,.4g}", f"x {line.b / line.a:.3g}", "", ""
    points = 100 * (line.b - line.a)
    cells = printable(line.name), f"{line.a:.2%}", f"{line.b:.2%}", f"{points:+.2f}"
    if line.change is None:
        return *cells, "", ""
    low, high = (100 * float(bound) for bound in line.change.interval())
    return *cells, f"{low:+.2f} to {high:+.2f}", said_p(float(line.change.p))


def printable(text: str) -> str:
    """What a record says, without what would steer a terminal or break a line."""
    return "".join(c if c.isprintable() else "?" for c in text)
