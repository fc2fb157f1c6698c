r"""Sections -> board.tex, a booktabs table for each task, ready for \input in a paper.

Every value is escaped: a name cannot break a table or run a command. Letters stay as they are; pdfLaTeX knows the Latin
ones, LuaLaTeX and XeLaTeX all that their fonts have.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

from advbench.board.numbers import amount, percent
from advbench.board.rows import Group
from advbench.board.table import Section

DAGGER = r"$^\dagger$"
COLUMNS = ("Defense", "Seeds", "Clean", "Robust", "Range", "Passes")
LONGEST = 100
"""Characters of a note; what an error said may be a page."""

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    # Behind the \\ of the line above it would begin an argument.
    "[": "{[}",
    "·": r"\textperiodcentered{}",
    "†": r"\textdagger{}",
    "–": r"\textendash{}",
}
"""What LaTeX takes for something else, or T1 and OT1 fonts show as another character."""

HEAD = r"""% Written by `advbench board`: a change by hand is lost with the next board.
% \usepackage[T1]{fontenc}, \usepackage{textcomp} and \usepackage{booktabs} in the preamble, then \input{board.tex}.
"""


def latex(sections: Sequence[Section]) -> str:
    """board.tex: a table a task, a row a group, in the board's order."""
    labels = [re.sub(r"[^a-z0-9]+", "-", section.task.lower()).strip("-") for section in sections]
    # Two tasks may be spelled alike.
    keys = [f"{label}-{i}" if labels.count(label) > 1 or not label else label for i, label in enumerate(labels)]
    return "\n".join([HEAD, *(_table(section, key) for section, key in zip(sections, keys, strict=True))])


def escape(text: object) -> str:
    """`text` as one line that LaTeX sets as it is."""
    words = "".join(c if c.isprintable() else " " for c in str(text)).split()
    told = "".join(SPECIAL.get(c, c) for c in " ".join(words))
    # Two in a row would be a dash or a quotation mark.
    return re.sub(r"([-,])(?=\1)", r"\1{}", told)


def _table(section: Section, key: str) -> str:
    return "\n".join(
        [
            r"\begin{table}",
            r"  \centering",
            rf"  \caption{{{_caption(section)}}}",
            rf"  \label{{tab:{key}}}",
            rf"  \begin{{tabular}}{{l{'r' * (len(COLUMNS) - 1)}}}",
            r"    \toprule",
            rf"    {' & '.join(COLUMNS)} \\",
            r"    \midrule",
            *(rf"    {' & '.join(_cells(group))} \\" for group in section.groups),
            r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _cells(group: Group) -> list[str]:
    scored, all_seeds = len(group.robusts), len(group.rows)
    several = scored > 1 and group.lowest is not None and group.highest is not None
    return [
        escape(group.label),
        str(scored) if scored == all_seeds else f"{scored} of {all_seeds}",
        _percent(group.clean),
        _percent(group.robust) + (DAGGER if group.marked else ""),
        f"{_percent(group.lowest)}--{_percent(group.highest)}" if several else "--",
        "--" if group.train_passes is None else amount(group.train_passes).replace(" ", r"\,"),
    ]


def _percent(value: float | None) -> str:
    return "--" if value is None else percent(value)


def _caption(section: Section) -> str:
    measured = f"robust accuracy by {escape(section.protocol)}" if section.protocol else "robust accuracy"
    words = [
        f"{escape(section.title)} ({escape(section.setting)}).",
        rf"Accuracy in \%, {measured}: means over seeds, and the range from the lowest seed to the highest.",
        "Passes are example passes of training, forward and backward.",
    ]
    if any(group.marked for group in section.groups):
        words.append(f"{DAGGER}~a seed has a flag or other settings, or is missing because its job failed.")
    noted = [f"{escape(group.label)}: {_notes(group)}." for group in section.groups if group.notes]
    return " ".join([*words, *noted])


def _notes(group: Group) -> str:
    # By letters, not words: an error may be one word.
    return "; ".join(escape(textwrap.shorten(note.text[: 2 * LONGEST], LONGEST)) for note in group.notes)
