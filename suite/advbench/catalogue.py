"""`advbench list`: what a task file can name."""

from __future__ import annotations

import json
import shutil
import textwrap
from typing import Any

import typer

from advbench import task
from advbench.spec import Part


def rows(kind: str) -> list[dict[str, Any]]:
    """One row for each thing of `kind`: name, a line about it, and what else is known."""
    if kind == "tasks":
        return [_task(path) for path in sorted(task.shipped("tasks").rglob("*.toml"))]
    from advbench import find  # loads torch, which a list of task files does without
    from advbench.attacks.base import Attack
    from advbench.collectors.base import Collector
    from advbench.data.base import Source
    from advbench.models.base import Model
    from advbench.study import Study

    match kind:
        case "defenses":
            return [_defense(name) for name in find.names(task.shipped("baselines"))]
        case "attacks":
            made = [find.part(Attack, name) for name in find.names(find.PACKAGE / "attacks")]
            return [{"name": _name(a), "about": _about(a), "paper": a.paper, "norms": list(a.norms)} for a in made]
        case "collectors":
            collectors = [find.part(Collector, name) for name in find.names(find.PACKAGE / "collectors")]
            return [{"name": c.name, "about": c.about, "paper": c.paper} for c in collectors]
        case "studies":
            studies = [find.part(Study, name) for name in find.names(find.PACKAGE / "studies")]
            return [{"name": s.name, "about": s.about, "paper": s.paper, "claims": len(s.claims)} for s in studies]
        case "datasets":
            sources = [find.part(Source, name) for name in find.names(find.PACKAGE / "data")]
            return [{"name": s.name, "about": s.about} for s in sources]
        case _:
            models = [find.part(Model, name) for name in find.names(find.PACKAGE / "models")]
            return [{"name": _name(m), "about": m.about} for m in models]


def _name(part: type[Part]) -> str:
    """A library is one line that says how to name what is in it."""
    from advbench import find

    return f"{part.name}:NAME" if find.is_family(part) else part.name


def _about(part: type[Part]) -> str:
    return (part.__doc__ or "").strip().splitlines()[0]


def _task(path: Any) -> dict[str, Any]:
    raw = task.read(path)
    return {"name": path.stem, "about": raw.get("title", ""), "path": str(path)}


def _defense(name: str) -> dict[str, Any]:
    """`forward` and `backward` are the example passes that a training example costs in a step."""
    from advbench import find

    made = find.defense(task.shipped("baselines") / f"{name.replace('-', '_')}.py")()
    forward, backward = made.passes()
    return {
        "name": made.name,
        "about": _about(type(made)),
        "paper": made.paper,
        "norms": list(made.norms),
        "forward": forward,
        "backward": backward,
    }


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """What is short enough for a column, by its title; passes are of a training example."""
    cells = {"name": row["name"]}
    if "norms" in row:
        cells["norms"] = ", ".join(row["norms"])
    if "forward" in row:
        cells["passes a step"] = f"{row['forward']:g} forward, {row['backward']:g} backward"
    if "claims" in row:
        cells["claims"] = str(row["claims"])
    return cells


def show(kind: str, *, as_json: bool) -> None:
    """Print the rows for a person, or as JSON and nothing else.

    Sentences, papers and paths stand below the name: as columns of 80 they would be broken within words.
    """
    found = rows(kind)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    table = [_cells(row) for row in found]
    heads = {title: title for title in table[0]}
    widths = {title: max(len(cells[title]) for cells in [heads, *table]) for title in heads}
    wrap = textwrap.TextWrapper(shutil.get_terminal_size().columns, break_long_words=False, break_on_hyphens=False)
    wrap.initial_indent = wrap.subsequent_indent = "    "

    def line(cells: dict[str, str]) -> str:
        return "  ".join(cells[title].ljust(width) for title, width in widths.items()).rstrip()

    if len(heads) > 1:
        print(line(heads))
    for row, cells in zip(found, table, strict=True):
        typer.secho(line(cells), bold=True)  # on a terminal; plain in a file
        for key in ("about", "paper", "path"):
            if key in row:
                print(wrap.fill(row[key]))
