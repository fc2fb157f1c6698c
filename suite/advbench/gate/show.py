"""What `advbench check` prints and writes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console

from advbench.compare.show import printable
from advbench.files import write_bytes
from advbench.gate.judge import CODES, Asked, Judgement, check, together
from advbench.gate.publish import junit, markdown
from advbench.spec import BadInput


def show(new: Path, old: Path, asked: Asked, junit_file: Path | None, markdown_file: Path | None, as_json: bool) -> int:
    """Judge, print, write; the exit code. Raises BadInput."""
    found = check(new, old, asked)
    verdict = together([judgement.verdict for judgement in found])
    for file, content in ((junit_file, junit(found)), (markdown_file, markdown(found).encode())):
        if file:
            try:
                write_bytes(file, content)
            except OSError as error:
                raise BadInput(f"{file}: cannot be written: {error.strerror}") from None
    if as_json:
        print(json.dumps({"verdict": verdict, "judgements": [j.plain() for j in found]}, indent=1))
        return CODES[verdict]
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
    for judgement in found:
        _tell(console, judgement)
    if len(found) > 1:
        console.print(verdict)
    return CODES[verdict]


def _tell(console: Console, judgement: Judgement) -> None:
    console.print(f"NEW: {printable(judgement.new)}\nOLD: {printable(judgement.old)}")
    for limit in judgement.limits:
        console.print(f"{limit.verdict:12}  {limit.name}: {printable(limit.said)}")
        for line in limit.advice:
            console.print(f"{'':12}  {printable(line)}")
    for remark in judgement.remarks:
        console.print(f"note: {printable(remark)}")
    console.print(f"{judgement.verdict}, about {judgement.about}")
