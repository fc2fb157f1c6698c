"""What of its records a page has room for, so that it stays below its size up to tens of thousands of them.

Four kinds of things are held, each with a share of the room of its own and what those before it have not used, so that
no record's pictures push out another one's settings: what the record says, the arrays of its collectors, its examples,
its images. Sizes are those of the page: compressed, in base64. With many records each has fewer examples and images,
and seeds take turns: each defense shows its first before any shows its second. What is left out is said, with where it
lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from advbench.board import arrays, embed, examples
from advbench.board.beside import Folders, Lost, key
from advbench.board.details import course, detail
from advbench.board.rows import Row
from advbench.board.table import Section

SIZE = 7_900_000
"""Bytes of a page: below 8 MB, with something to spare for what is only estimated here. The table of all records,
which is never cut, takes about 90 bytes of it a record: it would come to 8 MB alone at some 60,000 of them."""
SHARES = {"details": 0.34, "arrays": 0.27, "examples": 0.18, "images": 0.21}
"""Of the room, by kind."""
FILES = {"arrays": "measures.safetensors", "examples": "examples.parquet", "images": "adversarial.safetensors"}
"""Where each kind lies beside its record."""
ROWS = 100_000
"""Examples of all records together; each has its part, and at least the first hundred."""
PIXELS = 2_500_000
"""Bytes of pixels of all records together, before they are compressed; each has its part, and at least one image."""
FRAME = 150
"""Bytes of an element's tags and of what it says of what is left out."""
MISSES = 100
"""Records without room after which no further ones are tried."""

Place = tuple[int, int, int]
"""Task, group and seed, by their numbers on the page."""
Rows = Sequence[tuple[Place, Row]]


@dataclass
class Held:
    """What a page holds of its records; a place without an entry had no room for its settings."""

    courses: dict[Place, dict[str, Any]] = field(default_factory=dict[Place, dict[str, Any]])
    """What the charts of its task draw."""
    records: dict[Place, dict[str, Any]] = field(default_factory=dict[Place, dict[str, Any]])
    """What its own view shows."""
    words: dict[int, dict[tuple[str, str], int]] = field(default_factory=dict[int, dict[tuple[str, str], int]])
    """By task, the units and meanings of its measures, numbered."""

    def task(self, number: int) -> dict[str, Any]:
        """What the page's part of a task says of its records."""
        return {
            "held": {f"{g}-{s}": found for (t, g, s), found in sorted(self.courses.items()) if t == number},
            "words": [list(pair) for pair in self.words.get(number, ())],
        }


def fill(sections: Sequence[Section], folders: Folders, room: int) -> Held:
    """What fits into `room` bytes."""
    rows = turns(sections)
    shares = {kind: int(share * room) for kind, share in SHARES.items()}
    held, spare = _settings(rows, folders, shares["details"])
    count = max(len(held.records), 1)
    examined, pixels = max(100, ROWS // count), PIXELS // count
    kinds: dict[str, Callable[..., Any]] = {
        "arrays": arrays.of,
        "examples": lambda folder, record: examples.of(folder, record, examined),
        "images": lambda folder, record: examples.images(folder, record, pixels),
    }
    for kind, read in kinds.items():
        spare = _add(held, kind, read, shares[kind] + spare, rows, folders)
    return held


def _settings(rows: Rows, folders: Folders, left: int) -> tuple[Held, int]:
    """What records say of themselves, and the bytes that are left."""
    held, misses = Held(), 0
    for place, row in rows:
        words = held.words.setdefault(place[0], {})
        known = len(words)
        # What no JSON can say has no room anywhere.
        with suppress(RecursionError, ValueError):
            said, went = detail(row, folders[key(row.record)]), course(row, words)
            if (asked := size(said, went, list(words)[known:])) <= left:
                left -= asked
                held.records[place], held.courses[place] = said, went
                continue
        held.words[place[0]] = dict(list(words.items())[:known])
        # Smaller ones may still fit, but ten thousand need not be tried.
        misses += 1
        if misses == MISSES:
            break
    return held, left


def _add(held: Held, kind: str, read: Callable[..., Any], left: int, rows: Rows, folders: Folders) -> int:
    """Give each record what it has of `kind` while there is room; returns the bytes that are left."""
    for place, row in rows:
        if place not in held.records or row.failed:
            continue
        said = held.records[place]
        if left < 1_000:
            said.setdefault("left", {})[kind] = _where(kind)
            continue
        try:
            # Only what the record says is there: none of it missing is none lost.
            got = read(folders[key(row.record)], row.record)
        except Lost as why:
            said.setdefault("left", {})[kind] = str(why)
            continue
        if got is None:
            continue
        if (asked := size(got)) > left:
            said.setdefault("left", {})[kind] = _where(kind)
            continue
        left -= asked
        if kind == "arrays":
            held.courses[place]["arrays"] = got
        else:
            said[kind] = got
        if kind == "examples":
            held.courses[place]["standing"] = got.pop("standing")
    return left


def turns(sections: Sequence[Section]) -> Rows:
    """First seeds first: every group's first, then every group's second; tasks side by side."""
    places = [
        ((t, g, s), row)
        for t, section in enumerate(sections)
        for g, group in enumerate(section.groups)
        for s, row in enumerate(group.rows)
    ]
    return sorted(places, key=lambda found: (found[0][2], found[0][1]))


def _where(kind: str) -> str:
    """Why something is not on the page, and where it is."""
    return f"left out, for a page has so much room; it lies in {FILES[kind]} of the record"


def size(*values: Any) -> int:
    """Bytes that they take on the page. Raises RecursionError or ValueError for what no JSON can say."""
    return sum(len(embed.packed(value)) for value in values) + FRAME
