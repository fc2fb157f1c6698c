"""Lists in a task file that mean several tasks: models and radii; each combination is a task of its own.

What comes out is what a person could have written by hand, one file each, so nothing after this knows of sweeps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from advbench.spec import Number

LONGEST = 120
"""Characters of a task's name; it names folders, which hold 255 bytes at most."""
MOST = 10_000
"""Seeds that a number may stand for; more is a typing error."""

_number: TypeAdapter[Any] = TypeAdapter(Number)


@dataclass(frozen=True)
class Variant:
    """One task of a file: its name, its tables, and where in the file the swept ones stand."""

    name: str
    raw: dict[str, Any]
    places: Mapping[str, str]
    """`{"model": "model[1]"}`: the key that the tables have, and the one that the file has."""

    def told(self, errors: Sequence[str]) -> list[str]:
        """Complaints about the tables, as complaints about the file."""
        return [self._place(line) for line in errors]

    def _place(self, line: str) -> str:
        for key, place in self.places.items():
            if re.match(rf"{re.escape(key)}(?![\w\[])", line):
                return place + line.removeprefix(key)
        return line


@dataclass(frozen=True)
class _Choice:
    """One value of a list."""

    place: str
    value: Any
    words: str


def first(seeds: Any) -> Any:
    """`seeds = 5` is short for the first five."""
    if isinstance(seeds, list):
        return tuple(cast("list[Any]", seeds))  # strict fields take no list once Python has had it in its hands
    if isinstance(seeds, bool) or not isinstance(seeds, int):
        return seeds
    if not 1 <= seeds <= MOST:
        raise ValueError(f"a number of seeds should lie between 1 and {MOST:,}, not {seeds}")
    return tuple(range(seeds))


def expand(stem: str, raw: dict[str, Any]) -> tuple[list[Variant], list[str]]:
    """The tasks that a file's tables mean, models outermost, and one line for each list that cannot be one.

    Only lists make names: a file without one is its own only task, called `stem`.
    """
    errors: list[str] = []
    threat: Any = raw.get("threat")
    eps: Any = cast("dict[str, Any]", threat).get("eps") if isinstance(threat, dict) else None
    models = _choices("model", raw.get("model"), _model_words, errors)
    radii = _choices("threat.eps", eps, _eps_words, errors)
    variants: list[Variant] = []
    for model, radius in product(models or [None], radii or [None]):
        tables, swept = dict(raw), [choice for choice in (model, radius) if choice]
        if model:
            tables["model"] = {"name": model.value} if isinstance(model.value, str) else model.value
        if radius:
            tables["threat"] = {**tables["threat"], "eps": radius.value}
        if swept and isinstance(raw.get("title"), str):
            tables["title"] = f"{raw['title']} ({', '.join(choice.words for choice in swept)})"
        name = "@".join([stem, *(_safe(choice.words) for choice in swept)])
        if len(name) > LONGEST:
            errors.append(f"{swept[0].place}: would be called '{name}', which is too long to name a folder")
        keys = (("model", model), ("threat.eps", radius))
        variants.append(Variant(name, tables, {key: choice.place for key, choice in keys if choice}))
    return variants, errors


def _choices(key: str, values: Any, words: Any, errors: list[str]) -> list[_Choice] | None:
    """The values of a list; None for what is no list. A repeated one is an error: it would be the same task twice."""
    if not isinstance(values, list):
        return None
    given = cast("list[Any]", values)
    found = [_Choice(f"{key}[{i}]", value, words(value)) for i, value in enumerate(given)]
    if not found:
        errors.append(f"{key}: should hold at least 1")
    seen: set[str] = set()
    for choice in found:
        if (name := _safe(choice.words)) in seen:
            errors.append(f"{choice.place}: '{choice.words}' stands there twice")
        seen.add(name)
    return found


def _model_words(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    table = cast("dict[str, Any]", value)
    # All fields that are written, not only those that differ: a model added later must not rename the others.
    return " ".join([str(table.get("name")), *(f"{k}={_text(v)}" for k, v in table.items() if k != "name")])


def _eps_words(value: Any) -> str:
    try:
        return f"eps={_number.validate_python(value)}"
    except ValidationError:
        return f"eps={value}"  # `check` will say what is wrong with it


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(_text(item) for item in cast("list[Any]", value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _safe(words: str) -> str:
    """`words` in letters that folders, globs and URLs take as they are."""
    return re.sub(r"[^A-Za-z0-9._=]+", "-", words).strip("-")
