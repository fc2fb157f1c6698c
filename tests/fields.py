"""What tests share that hold parts to a table of their fields: what they are unless said, and what they may be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from advbench.spec import Spec

BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "minLength": "length >=",
    "minItems": "items >=",
    "pattern": "like",
}


def fields(name: str, kind: type[Spec]) -> list[str]:
    """A line for each field of its own: its default as JSON, or "required", and its bounds."""
    found = kind.model_json_schema()
    lines: list[str] = []
    for field in sorted(found["properties"].keys() & kind.__annotations__.keys()):
        schema = found["properties"][field]
        default = "required" if field in found.get("required", ()) else json.dumps(schema.get("default"))
        lines.append(" ".join((f"{name}.{field}", default, *_bounds(schema))))
    return lines


def _bounds(schema: dict[str, Any]) -> Iterator[str]:
    for word, sign in BOUNDS.items():
        if word in schema:
            yield f"{sign} {schema[word]}"
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        yield from _bounds(inner)
