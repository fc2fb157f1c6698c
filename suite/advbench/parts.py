"""What is wrong with the tables of a task file that only the class of a part can judge, all of it at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from advbench import find, surrogate
from advbench.attacks.base import Attack
from advbench.data.base import Source
from advbench.defense import Defense
from advbench.find import build, defense, defense_file, named, part, source
from advbench.models.base import Model
from advbench.spec import BadInput, validate
from advbench.task import Data, Defended, Entry, ladder


def part_errors(raw: Mapping[str, Any], base: Path) -> list[str]:
    """What is wrong with the tables that only a part's class can judge; structural errors are skipped here."""
    errors: list[str] = []

    def attempt(where: str, values: Any, schema: type[Entry | Defended | Data], make: Any) -> None:
        try:
            make(validate(schema, {"name": values} if isinstance(values, str) else values))
        except ValidationError:
            pass  # `check` has said it
        except BadInput as error:
            errors.extend(_told(where, error))

    def model(entry: Entry) -> None:
        build(part(Model, entry.name), entry.fields)

    def attack(entry: Entry) -> None:
        surrogate.check(named(Attack, {"name": entry.name, **entry.fields}, base))

    data: Any = raw.get("data")
    if isinstance(data, dict) and isinstance(data.get("name"), str):  # pyright: ignore[reportUnknownMemberType]
        try:
            part(Source, str(data["name"]))
        except BadInput as error:
            errors.extend(f"data.name: {line}" for line in error.lines)
        else:
            attempt("data", {key: data[key] for key in ("name", "path", "size") if key in data}, Data, source)
    attempt("model", raw.get("model"), Entry, model)
    rungs: Any = raw.get("evaluation", {}).get("attacks", []) if isinstance(raw.get("evaluation", {}), dict) else []
    for i, entry in enumerate(ladder(rungs) if isinstance(rungs, list) else []):
        attempt(f"evaluation.attacks[{i}]", entry, Entry, attack)
    collected: Any = raw.get("collect")
    if isinstance(collected, dict) and all(isinstance(fields, dict) for fields in collected.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        errors += _uncollected(collected, base)  # pyright: ignore[reportUnknownArgumentType]
    defenses: Any = raw.get("defense", [])
    for i, entry in enumerate(defenses if isinstance(defenses, list) else []):  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]
        title = f' "{entry.get("name") or entry.get("file")}"' if isinstance(entry, dict) else ""  # pyright: ignore[reportUnknownMemberType]
        attempt(f"defense[{i}]{title}", entry, Defended, lambda entry: _chosen(entry, base))
    return errors


def _chosen(entry: Defended, base: Path) -> None:
    chosen_defense(entry, base)
    if wrong := _uncollected(entry.collect, base):
        raise BadInput(*(f".{line}" for line in wrong))


def _uncollected(tables: Mapping[str, Mapping[str, Any]], base: Path) -> Sequence[str]:
    """What is wrong with a table of collectors."""
    try:
        find.collectors(tables, base)
    except BadInput as error:
        return error.lines
    return ()


def chosen_defense(entry: Defended, base: Path) -> Defense:
    """What a `[[defense]]` means, own files relative to `base`. Raises BadInput."""
    return find.defended(defense(defense_file(entry, base)), entry.fields, base)


def _told(where: str, error: BadInput) -> list[str]:
    """Its lines with the place in front; one that begins with a dot says where in that place."""
    return [f"{where}{line}" if line.startswith(".") else f"{where}: {line}" for line in error.lines]
