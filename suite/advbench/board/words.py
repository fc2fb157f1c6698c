"""What a reader is told in sentences: who leads a task, how sure that is, and what every flag means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from advbench.board.support import Standing
from advbench.task import shipped

SEVERAL = 3
"""Names that a sentence holds before it counts."""

LONGEST = 60
"""Characters of a name in a sentence."""
MANY = 8
"""Names above which a sentence only counts."""

CLAIMS = {
    "defenses": "Seeds and test examples both count; all pairs are judged together at 5 % (Holm).",
    "checkpoints": (
        "With fewer than three seeds this speaks of these checkpoints, not of the defenses "
        "(McNemar's exact test where each side is one, all pairs together at 5 % by Holm): another training may end "
        "otherwise."
    ),
    "both": (
        "Between defenses of three seeds and more, seeds and test examples both count; where one side has fewer, "
        "it speaks of the checkpoints. All pairs are judged together at 5 % (Holm)."
    ),
    "none": "",
}


def brief(name: str) -> str:
    """A name as a sentence can hold it; strangers' may have ten thousand characters."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def leads(standing: Standing, order: Sequence[str], marked: Sequence[str] = ()) -> str:
    """`pgd-at and dat lead and are not told apart (ranks 1-2 of 6).`

    `order` has the labels of the task as its table has them, `marked` those whose notes come first.
    """
    ranks = standing.ranks
    first = [label for label in order if label in ranks and ranks[label][0] == 1]
    if not ranks:
        return "Nothing here has a rank: " + (_reasons(standing) or "nothing was judged") + "."
    among = len(ranks)
    top, *rest = first
    best = brief(top)
    if among == 1:
        said = f"Only {best} was judged to the end, so there is nothing to rank it against."
    elif not rest and ranks[top][1] == 1:
        said = f"{best} is best (rank 1 of {among}): better than {'the other' if among == 2 else 'all others'}."
    elif not rest:
        said = f"{best} leads (ranks {between(ranks[top])} of {among})."
    elif len(rest) > MANY:
        said = f"{best} leads (ranks {between(ranks[top])} of {among}); {len(rest)} others are not told apart from it."
    elif len({ranks[label] for label in first}) == 1:
        said = f"{listed(first)} lead and are not told apart (ranks {between(ranks[top])} of {among})."
    else:
        # A seed that went astray leaves the place of its defense open: it may lead, and does not.
        others = listed([f"{brief(label)} ({between(ranks[label])})" for label in rest])
        said = f"{best} leads (ranks {between(ranks[top])} of {among}); not told apart from it: {others}."
    if noted := [label for label in first[: MANY + 1] if label in marked]:
        said += f" Read the notes of {listed(noted)} first."
    return said


def certainty(standing: Standing) -> str:
    """Whom the ranks speak of, and who has none."""
    left = f" Not ranked: {_reasons(standing)}." if standing.ranks and standing.unranked else ""
    return (CLAIMS[standing.claim] if len(standing.ranks) > 1 else "") + left


def between(ranks: tuple[int, int]) -> str:
    """`1`, or `1-4`."""
    return str(ranks[0]) if ranks[0] == ranks[1] else f"{ranks[0]}\N{EN DASH}{ranks[1]}"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`; `a, b, c and 4 others`."""
    whole = len(names) <= SEVERAL + 1
    few = [brief(name) for name in (names if whole else names[:SEVERAL])]
    few += [] if whole else [f"{len(names) - SEVERAL} others"]
    return few[0] if len(few) == 1 else f"{', '.join(few[:-1])} and {few[-1]}"


def _reasons(standing: Standing) -> str:
    by: dict[str, list[str]] = {}
    for label, why in standing.unranked.items():
        by.setdefault(why, []).append(label)
    return "; ".join(f"{listed(labels)} ({why})" for why, labels in by.items())


Token = tuple[str, str]
"""Text, and the address that it links to or nothing; code begins with a backtick."""


@cache
def flags() -> dict[str, dict[str, list[Token]]]:
    """By flag, the paragraphs of its section in docs/flags.md: `Seen`, `Means`, `Do`, `Source`."""
    sections = (shipped("docs") / "flags.md").read_text(encoding="utf-8").split("\n## ")[1:]
    found: dict[str, dict[str, list[Token]]] = {}
    for section in sections:
        name, _, text = section.partition("\n")
        parts = [" ".join(part.split()) for part in text.strip().split("\n\n")]
        told = [re.fullmatch(r"\*\*(\w+)\.\*\* (.*)", part) for part in parts]
        found[name.strip()] = {match[1]: tokens(match[2]) for match in told if match}
    return found


def tokens(text: str) -> list[Token]:
    """A paragraph of Markdown as plain text, `code` and links, for a page that builds text nodes."""
    found: list[Token] = []
    for plain, code, words, address in re.findall(r"([^`\[]+)|`([^`]*)`|\[([^\]]*)\]\(([^)]*)\)", text):
        if code:
            found.append((f"`{code}", ""))
        elif words:
            # A link into the page of flags leads nowhere here.
            found.append((words, address if address.startswith("https://") else ""))
        else:
            found.append((re.sub(r"\*\*?([^*]+)\*\*?", r"\1", plain), ""))
    return found
