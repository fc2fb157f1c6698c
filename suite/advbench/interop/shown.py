"""What a person sees of `advbench import`."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from advbench.interop import published
from advbench.interop.about import About
from advbench.spec import BadInput, did_you_mean


def show(path: Path, out: Path | None, board: str | None, beside: Path | None, about: Path | None) -> None:
    """Read the entries of `path`, keep them in `out`, print one `board` or how many each has. Raises BadInput."""
    # A file or a pipe has no width of its own: nobody wants names broken there.
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    if beside is not None and board is None:
        raise BadInput("--beside needs a --board, such as --board cifar10/Linf")
    entries, lost = published.read(path)
    counts = Counter(one.board for one in entries)
    if board is not None and board not in counts:
        raise BadInput(f"--board {board}: no entry of it{did_you_mean(board, counts)}")
    # All that can be wrong is known before anything is written.
    lines = published.lines(entries, board, beside, About.read(about) if about else {}) if board else []
    if out is not None:
        published.save(entries, out)
        console.print(f"{out}: {len(entries)} entries", soft_wrap=True)
    for line in lost:
        console.print(f"left out: {line}", soft_wrap=True)
    if board is None:
        for name, count in sorted(counts.items()):
            console.print(f"{name}: {count} {'entry' if count == 1 else 'entries'}", soft_wrap=True)
        return
    whole = [Column(name, overflow="fold") for name in ("model", "architecture")]
    table = Table("#", whole[0], "robust", "clean", whole[1], "extra data", "from", title=board)
    for rank, line in enumerate(lines, 1):
        table.add_row(
            str(rank),
            line.id,
            _percent(line.robust),
            _percent(line.clean),
            str(line.fields.get("architecture") or ""),
            "yes" if line.fields.get("additional_data") else "",
            "measured here" if line.here else "published",
        )
    console.print(table)
    if beside is not None and not any(line.here for line in lines):
        console.print(f"{beside}: no record was measured as {board} measures", soft_wrap=True)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}%"
