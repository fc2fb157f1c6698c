"""The tables of docs/claims.md, from the committed records:

    python docs/claims.py leaderboard

How many claims of each study came to what, and, folded, every claim with its source, what was required and what was
found.
"""

from __future__ import annotations

import sys
from pathlib import Path

from advbench.board.page import escape_markdown
from advbench.board.studies import Studied, interval, number, required, studies
from advbench.record import load_all

VERDICTS = ("holds", "does not hold", "undecided")


def row(study: Studied) -> str:
    """One study: what it asks, and how many of its claims came to what."""
    counts = [sum(one.verdict == verdict for one in study.judged) for verdict in VERDICTS]
    about = study.findings.about if study.findings else study.title
    return f"| `{study.label}` | {about} | {' | '.join(map(str, counts))} |"


def claims(study: Studied) -> list[str]:
    """A line a claim."""
    return [
        f"| `{study.label}` | {escape_markdown(one.claim.statement)} | {escape_markdown(one.claim.source)} | "
        f"{required(one)} | {number(one.found)} | {interval(one)} | {one.verdict} |"
        for one in study.judged
    ]


def table(folder: Path) -> list[str]:
    """A line a study, then their sum; and below, folded, a line a claim."""
    found = studies(load_all(folder / "records"))
    sums = [sum(one.verdict == verdict for study in found for one in study.judged) for verdict in VERDICTS]
    head = ["| study | asks | hold | do not | undecided |", "| --- | --- | ---: | ---: | ---: |"]
    short = [*head, *map(row, found), f"| {len(found)} studies | | {' | '.join(map(str, sums))} |"]
    all_ = ["| study | claim | source | required | found | interval | verdict |", f"|{' --- |' * 7}"]
    all_ += [line for study in found for line in claims(study)]
    fold = ["<details>", f"<summary>All {sum(sums)} claims</summary>", "", *all_, "", "</details>"]
    return [*short, "", *fold]


if __name__ == "__main__":
    sys.stdout.write("\n".join(table(Path(sys.argv[1]))) + "\n")
