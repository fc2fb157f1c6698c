"""Sections -> README.md and index.html, through the two templates beside this file.

Every value is escaped: labels, titles and error messages come from records, and records may come from strangers. In
index.html they are JSON, from which scripts make text and nothing else.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from advbench.board import embed, overview, studies, words
from advbench.board.beside import Folders
from advbench.board.numbers import NOTHING, amount, budget, duration, few, percent
from advbench.board.remarks import remarks
from advbench.board.rows import MARK, PLAIN
from advbench.board.studies import Studied
from advbench.board.table import Section

SIGNATURE = "<!-- Written by `advbench board`"
"""How README.md begins: what begins otherwise is somebody's own."""

CAVEAT = (
    "Sorted by mean robust accuracy. A rank is a range: from 1 + the rows that are better beyond chance to the number "
    "of rows less those that are worse; fewer than three seeds never support a claim about a defense."
)

RANGE = "the range is the lowest and the highest seed, not a confidence interval"
INTERVAL = "the small range is its 95 % interval"
"""What README.md and index.html have beside it."""

LEGEND = (
    "Robust accuracy is the share of test examples that no attack broke, averaged over seeds; "
    f"{RANGE}. {MARK} a seed with a flag or under other settings, or a mean "
    "that holds one or lacks a failed one: read the notes first. A seed that collapsed (catastrophic overfitting) "
    "withstood a single attack step and fell to ten. Passes are example passes of training, forward and "
    "backward; times are those of the machine that trained, whatever else it did meanwhile."
)

BUDGETS = (
    "PGD-10 accuracy on validation data, in percent, of the checkpoint kept in the whole epochs that fit the budget, "
    "averaged over seeds; # is the rank. Each budget is the least that a seed of any defense that trains against the "
    "threat spent in all. Schedules were planned for the whole training, so a number in its middle tells how soon a "
    "defense pays, and is not the robust accuracy above. Passes count replayed batches; seconds are those of the "
    "machine that trained, times the processes that shared a training."
)

MEASURES = (
    "Means over seeds, in small type the lowest and the highest of several. What they mean stands at the end of each "
    "line; on how many examples they were measured, and what does not apply, stands with every record."
)

CLAIMS = (
    "What theory says, and whether an experiment bears it out. What is required was written down before the first run. "
    "A claim about a mean over seeds holds where its whole 95 % interval is on the required side, does not hold where "
    "none of it is, and is undecided between; a claim about every seed is refuted by one."
)


def markdown(sections: Sequence[Section], studied: Sequence[Studied] = ()) -> str:
    """README.md, as GitHub shows it."""
    return _render("README.md.jinja", sections, studied=studied)


def html(sections: Sequence[Section], folders: Folders, studied: Sequence[Studied] = ()) -> str:
    """index.html: one file that asks for nothing else, with as much of single records as it has room for."""
    # Here, because README.md needs neither arrays nor tables.
    from advbench.board import room

    legend = LEGEND.replace(RANGE, INTERVAL)
    board: dict[str, Any] = {
        "words": {"legend": legend, "caveat": CAVEAT, "budgets": BUDGETS, "measures": MEASURES, "mark": MARK},
        "flags": words.flags(),
        "plain": PLAIN,
        "tasks": [overview.task(section) for section in sections],
        "records": sum(len(section.rows) for section in sections),
    }
    if studied:
        board |= {"studies": [studies.plain(one) for one in studied]}
        board["words"] |= {"claims": CLAIMS}
    parts = {"board": embed.packed(board)} if sections or studied else {}
    tasks = [overview.more(section) for section in sections]
    bare = _render("index.html.jinja", sections, parts=parts, embed=embed, studied=studied)
    taken = len(bare.encode()) + sum(room.size(task) for task in tasks)
    held = room.fill(sections, folders, room.SIZE - taken)
    parts |= {f"task-{t}": embed.packed(task | held.task(t)) for t, task in enumerate(tasks)}
    parts |= {
        f"record-{'-'.join(map(str, place))}": embed.packed(found) for place, found in sorted(held.records.items())
    }
    return _render("index.html.jinja", sections, parts=parts, embed=embed, studied=studied)


def spread(lowest: float | None, highest: float | None, seeds: int) -> str:
    """The range of a group; one seed has none."""
    return f"{percent(lowest)}\N{EN DASH}{percent(highest)}" if seeds > 1 else NOTHING


def escape_markdown(text: object) -> Markup:
    """`text` as one line that Markdown shows as it is, inside a table too."""
    line = entities.escape(" ".join(str(text).split()), quote=False)
    # Markup, because it is escaped now and a second escaping would show.
    return Markup(re.sub(r"([\\`*_{}\[\]()#|!~])", r"\\\1", line))  # noqa: S704


def ranks(found: tuple[int, int] | None) -> str:
    """1, or 2-5; nothing where there is none."""
    return few(*found) if found else NOTHING


FILTERS: dict[str, Callable[[Any], object]] = {
    "percent": percent,
    "amount": amount,
    "duration": duration,
    "md": escape_markdown,
    "ranks": ranks,
    "number": studies.number,
    "required": studies.required,
    "interval": studies.interval,
}


def _render(template: str, sections: Sequence[Section], **more: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    said = {"MARK": MARK, "CAVEAT": CAVEAT, "LEGEND": LEGEND, "BUDGETS": BUDGETS, "CLAIMS": CLAIMS, "NOTHING": NOTHING}
    functions = {"spread": spread, "budget": budget, "few": few, "leads": _leads, "remarks": remarks}
    return environment.get_template(template).render(sections=sections, **said, **functions, **more)


def _leads(section: Section) -> str:
    """Who leads, and how sure that is."""
    labels = [group.label for group in section.groups]
    marked = [group.label for group in section.groups if group.marked]
    return f"{words.leads(section.standing, labels, marked)} {words.certainty(section.standing)}".strip()
