"""`advbench schema`: the JSON Schema of task files, so that an editor completes, explains and checks them.

It is made from the classes that check a task file in earnest. They are many (a model, an attack and a defense each have
their own), so a table that names a part is one of as many branches as there are parts. What a single value may
be is said here; what two values mean together (milestones that rise, a radius above 1) only `advbench validate` knows.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from advbench import find, load, recipe, sweeps, task
from advbench.attacks.base import Attack
from advbench.collectors.base import Collector
from advbench.defense import Defense
from advbench.experiment import StudyTable
from advbench.models.base import Model
from advbench.spec import Part, Spec
from advbench.study import Study

Schema = dict[str, Any]


def schema() -> Schema:
    """The whole schema, draft 2020-12."""
    made = task.Task.model_json_schema()
    defs: dict[str, Schema] = made["$defs"]
    for kind in (vars(task) | vars(recipe)).values():
        if isinstance(kind, type) and issubclass(kind, Spec) and kind.__name__ in defs:
            _explain(defs[kind.__name__], kind)
    _explain(made, task.Task)
    models = [find.part(Model, name) for name in find.names(find.PACKAGE / "models")]
    attacks = [find.part(Attack, name) for name in find.names(find.PACKAGE / "attacks")]
    collectors = [find.part(Collector, name) for name in find.names(find.PACKAGE / "collectors")]
    files = sorted(task.shipped("baselines").glob("*.py"))
    defenses = [find.defense(file) for file in files if file.stem not in load.NO_PARTS]
    defended = _defended(defs)
    defs["model"] = {"anyOf": [_branch(kind, defs) for kind in models]}
    bare = [kind for kind in attacks if not any(field.is_required() for field in kind.model_fields.values())]
    defs["attack"] = {"anyOf": [_names(bare), *(_branch(kind, defs) for kind in attacks), _file("attack")]}
    bases = [kind for kind in defenses if kind.step is Defense.step]
    defs["base"] = {
        "anyOf": [
            *(_branch(kind, defs) for kind in bases),
            _own_file(dict.fromkeys(("label", "training", "collect"), False)),
        ]
    }
    defs["defense"] = {"anyOf": [*(_branch(kind, defs, defended) for kind in defenses), _own_file(defended)]}

    properties = made["properties"]
    either = {"anyOf": [_names(models), _ref("model")]}
    properties["model"] = {
        "description": "One model, or a list: a task of each.",
        "anyOf": [_ref("model"), _list(either)],
    }
    defs["collect"] = {
        "type": "object",
        "properties": {kind.name: _fields(kind, defs) for kind in collectors},
        "additionalProperties": _file("collector"),
    }
    properties["collect"] = {"description": properties["collect"]["description"]} | _ref("collect")
    properties["defense"] |= {"items": _ref("defense")}
    properties["study"] = _studies(defs)
    # A file has a study, or all that defenses need.
    whole = [name for name in made["required"] if name not in ("version", "title")]
    made |= {"required": ["version", "title"], "anyOf": [{"required": ["study"]}, {"required": whole}]}
    defs["Data"]["properties"]["name"] = {"enum": find.names(find.PACKAGE / "data")}
    defs["Evaluation"]["properties"]["attacks"] |= {"items": _ref("attack"), "minItems": 1}
    eps = defs["ThreatModel"]["properties"]["eps"]
    eps["description"] = 'Radius, pixels in [0, 1], such as 0.1 or "8/255"; or a list: a task of each.'
    eps["anyOf"] = [*eps["anyOf"], _list({"anyOf": eps["anyOf"]})]
    training = defs["Training"]["properties"]
    training["seeds"] = _or(training["seeds"], {"type": "integer", "minimum": 1, "maximum": sweeps.MOST})
    words = {"enum": [defs[_name(way)]["properties"]["name"]["const"] for way in training["augment"]["items"]["oneOf"]]}
    training["augment"]["items"] = {"anyOf": [words, *training["augment"]["items"]["oneOf"]]}
    training["augment"] = _or(training["augment"], words)
    changes = {key: value for key, value in training.items() if key != "seeds"}
    defs["changes"] = {"type": "object", "properties": changes, "additionalProperties": False}
    for unused in ("Entry", "Defended", "Defense"):
        defs.pop(unused, None)
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A task file of advbench"}
    return about | _untitled(made)


def _or(said: Schema, other: Schema) -> Schema:
    """What is `said`, or `other`; default and description stay outside."""
    outside = {key: said[key] for key in ("default", "description") if key in said}
    return outside | {"anyOf": [{key: value for key, value in said.items() if key not in outside}, other]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _name(ref: Schema) -> str:
    return ref["$ref"].rpartition("/")[2]


def _list(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _names(kinds: list[Any]) -> Schema:
    return {"anyOf": [_called(kind) for kind in kinds]}


def _called(kind: type[Part]) -> Schema:
    """The name of a part; a library's is followed by that of one of its hundreds of networks or attacks."""
    return {"type": "string", "pattern": f"^{kind.name}:."} if find.is_family(kind) else {"const": kind.name}


def _branch(kind: type[Part], defs: dict[str, Schema], more: Schema | None = None) -> Schema:
    """The table of one part: its name, its fields, and the `more` that any part of its kind may have."""
    made = kind.model_json_schema()
    defs.update(made.pop("$defs", {}))
    _explain(made, kind)
    for name, field in made.get("properties", {}).items():
        if table := field.pop("table", None):
            # A table inside the table.
            kept = {key: value for key, value in field.items() if key in ("default", "description")}
            made["properties"][name] = kept | _ref(table)
    return {
        "type": "object",
        "description": inspect.cleandoc(kind.__doc__ or ""),
        "properties": {"name": _called(kind), **(more or {}), **made.get("properties", {})},
        "required": ["name", *made.get("required", [])],
        "additionalProperties": False,
    }


def _fields(kind: type[Part], defs: dict[str, Schema]) -> Schema:
    """The table of a part whose name stands outside it."""
    made = _branch(kind, defs)
    made["properties"].pop("name")
    made["required"].remove("name")
    return made


def _defended(defs: dict[str, Schema]) -> Schema:
    """What every `[[defense]]` may have beside its own fields."""
    written = defs["Defended"]["properties"]
    tables = {"training": "changes", "collect": "collect"}
    kept = {key: value for key, value in written.items() if key not in ("name", "file", *tables)}
    return {
        **kept,
        **{key: {"description": written[key]["description"]} | _ref(meant) for key, meant in tables.items()},
    }


def _own_file(defended: Schema) -> Schema:
    """A defense in a file of one's own, whose fields only that file knows."""
    made = _file("defense")
    return made | {"properties": {**made["properties"], "name": False, **defended}}


def _studies(defs: dict[str, Schema]) -> Schema:
    """`[study]`, in the place of defenses."""
    seeds = StudyTable.model_json_schema()["properties"]["seeds"]
    seeds = _or(seeds, {"type": "integer", "minimum": 1, "maximum": sweeps.MOST})
    more = {"seeds": seeds | {"description": _remarks(StudyTable)["seeds"]}}
    kinds = [find.part(Study, name) for name in find.names(find.PACKAGE / "studies")]
    own = _file("study")
    own["properties"] |= {"name": False, **more}
    defs["study"] = {"anyOf": [*(_branch(kind, defs, more) for kind in kinds), own]}
    return {"description": "A theory's claims, tried by an experiment; in the place of defenses."} | _ref("study")


def _file(word: str) -> Schema:
    """The table of a part in a user's own file, whose fields only that file knows."""
    file = {"type": "string", "description": f"A Python file with one {word}, relative to the task file; it is run."}
    return {"type": "object", "properties": {"file": file}, "required": ["file"]}


def _explain(made: Schema, kind: type[Spec]) -> None:
    """Put what stands under each field of the class into the schema of that field."""
    for name, words in _remarks(kind).items():
        if name in made.get("properties", {}):
            made["properties"][name] = {**made["properties"][name], "description": words}


def _remarks(kind: type[Spec]) -> dict[str, str]:
    """The docstrings of the fields. pydantic could keep them, but would read every source file at every start."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, Spec):
            continue
        for field, after in pairwise(_body(base)):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                found[field.target.id] = " ".join(str(after.value.value).split())
    return found


@cache
def _body(kind: type) -> list[ast.stmt]:
    # By where its module was loaded from.
    spec = sys.modules[kind.__module__].__spec__
    assert spec is not None
    assert spec.origin is not None
    nodes = ast.parse(Path(spec.origin).read_bytes()).body
    return next((node.body for node in nodes if isinstance(node, ast.ClassDef) and node.name == kind.__name__), [])


def _untitled(node: Any, *, names: bool = False) -> Any:
    """Without the titles that pydantic makes of the names; `names`: the keys are names, where "title" is a field."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]  # pyright: ignore[reportUnknownVariableType]  # JSON of any shape
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if names or key not in ("title", "discriminator")}  # pyright: ignore[reportUnknownVariableType]
    return {key: _untitled(value, names=not names and key in ("properties", "$defs")) for key, value in kept.items()}  # pyright: ignore[reportUnknownVariableType]
