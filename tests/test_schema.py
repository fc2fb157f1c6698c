"""The schema takes what `advbench` takes and refuses what it refuses, and knows every part and what its fields mean."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from advbench import find
from advbench.schema import schema
from advbench.sweeps import MOST
from advbench.task import Task, shipped

STARTER = tomllib.loads((shipped("tasks") / "digits-linf.toml").read_text(encoding="utf-8"))

SURROGATE = {"name": "mlp", "pretrained": "w.safetensors", "extra_data": "none"}
TRANSFER: dict[str, Any] = {"name": "transfer", "surrogate": SURROGATE, "attack": "mi-fgsm"}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return schema()


@pytest.fixture(scope="module")
def right(made):
    """A function: tables -> whether the schema takes them."""
    return Draft202012Validator(made).is_valid


def test_it_is_a_schema_and_json(made):
    Draft202012Validator.check_schema(made)

    assert json.loads(json.dumps(made)) == made
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert made["properties"].keys() == Task.model_fields.keys() | {"study"}


@pytest.mark.parametrize("path", sorted(shipped("tasks").rglob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_task_is_valid(made, path: Path):
    errors = Draft202012Validator(made).iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))

    assert [error.message for error in errors] == []


def changed(table: str, **values: Any) -> dict[str, Any]:
    return {**STARTER, table: {**STARTER.get(table, {}), **values}}


@pytest.mark.parametrize(
    "tables",
    [
        {**STARTER, "model": ["digits-cnn", {"name": "mlp", "hidden": [64]}]},
        {**STARTER, "model": [{"name": "linear"}]},
        changed("threat", eps=["1/10", 0.2]),
        changed("threat", eps="8/255"),
        changed("training", seeds=5),
        changed("training", seeds=MOST),
        {"version": 1, "title": "S", "study": {"file": "mine.py", "seeds": 3, "throws": 7}},
        {"version": 1, "title": "S", "study": {"name": "gan-gda", "seeds": [3, 1]}},
        changed("training", augment="crop-flip"),
        changed("training", augment=["cutout", {"name": "crop-flip", "pad": 2}]),
        changed("resources", threads=2),
        changed("collect", fosc={}, **{"input-hessian": {"examples": 64, "top": 2}}),
        changed("collect", fosc={"every": 5, "examples": 64}, updates={}),
        changed(
            "evaluation", attacks=["mi-fgsm", "torchattacks:PGD", {"name": "foolbox:LinfPGD", "options": {"steps": 3}}]
        ),
        changed("evaluation", attacks=["fgsm", {"file": "mine.py", "steps": 3}]),
        changed("collect", mine={"file": "mine.py", "examples": 64}),
        changed("evaluation", attacks=[TRANSFER, TRANSFER | {"attack": {"name": "pgd", "steps": 3}}]),
        {**STARTER, "model": {"name": "torchvision:resnet18", "pretrained": "w.safetensors", "extra_data": "none"}},
        {**STARTER, "model": ["timm:vit_tiny_patch16_224", {"name": "timm:resnet18", "stem": "original"}]},
        changed("training", augment=["crop-flip", {"name": "randaugment", "magnitude": 5}], average=0.99),
        {**STARTER, "defense": [{"file": "mine.py", "beta": 6.0, "label": "mine"}]},
        {**STARTER, "defense": [{"name": "pgd-at", "steps": 3, "training": {"epochs": 4}}]},
        {**STARTER, "defense": [{"name": "ibp", "collect": {"certified": {"crown": False}}}]},
        {**STARTER, "defense": [{"name": "awp"}, {"name": "awp", "label": "b", "base": {"name": "trades", "beta": 5}}]},
        {**STARTER, "defense": [{"name": "awp", "gamma": 0.005, "base": {"file": "mine.py", "steps": 3}}]},
    ],
    ids=lambda tables: next(str(value) for key, value in tables.items() if STARTER.get(key) != value)[:60],
)
def test_what_a_task_may_say_is_valid(right, tables):
    assert right(tables)


@pytest.mark.parametrize(
    "tables",
    [
        {**STARTER, "colour": "red"},
        {key: value for key, value in STARTER.items() if key != "title"},
        {**STARTER, "version": 2},
        {**STARTER, "model": "digits-cnn"},
        {**STARTER, "model": []},
        {**STARTER, "model": {"name": "dgits-cnn"}},
        {**STARTER, "model": {"name": "mlp", "hiden": [3]}},
        {**STARTER, "model": ["mpl"]},
        {**STARTER, "model": {"name": "torchvision"}},
        {**STARTER, "model": {"name": "torchvision:resnet18", "steem": "original"}},
        changed("data", name="digit"),
        changed("data", train=0),
        changed("threat", eps=[]),
        changed("threat", eps="a third"),
        changed("threat", norm="linf"),
        changed("training", epochs="30"),
        changed("training", epoch=30),
        changed("training", seeds=0),
        changed("training", seeds=MOST + 1),
        *(
            {key: value for key, value in STARTER.items() if key != lacking}
            for lacking in ("threat", "defense", "version")
        ),
        {"version": 1, "study": {"name": "gan-gda"}},
        {"version": 1, "title": "S", "study": {"name": "gan-gad"}},
        {"version": 1, "title": "S", "study": {"name": "gan-gda", "file": "mine.py"}},
        {"version": 1, "title": "S", "study": {"name": "gan-gda", "seeds": 0}},
        {"version": 1, "title": "S", "study": {"file": "mine.py", "seeds": MOST + 1}},
        {"version": 1, "title": "S", "study": {"seeds": 3}},
        changed("collect", fosc={"name": "fosc"}),
        changed("training", momentum=1),
        changed("training", augment=["cropflip"]),
        changed("evaluation", attacks=["fsgm"]),
        changed("evaluation", attacks=[{"name": "pgd", "step": 3}]),
        changed("evaluation", attacks=[]),
        changed("evaluation", attacks=["transfer"]),
        changed("evaluation", attacks=["torchattacks"]),
        changed("evaluation", attacks=[{"name": "transfer", "attack": "pgd"}]),
        changed("evaluation", attacks=[TRANSFER | {"surrogate": {"name": "mpl"}}]),
        changed("evaluation", attacks=[TRANSFER | {"attack": {"name": "pgd", "step": 3}}]),
        changed("evaluation", attacks=[{"name": "pgd", "schedule": "cosin"}]),
        changed("collect", fsoc={}),
        changed("collect", fosc={"stpes": 3}),
        changed("collect", fosc={"examples": 0}),
        changed("collect", fosc={"every": 0}),
        changed("collect", updates={"every": "epoch"}),
        changed("collect", fosc=True),
        changed("collect", mine={"file": 3}),
        changed("evaluation", attacks=[{"file": 3}]),
        {**STARTER, "defense": []},
        {**STARTER, "defense": [{"name": "pgd-at", "setps": 3}]},
        {**STARTER, "defense": [{"name": "pgd-at", "steps": 0}]},
        {**STARTER, "defense": [{"name": "pgd-ta"}]},
        {**STARTER, "defense": [{"name": "pgd-at", "file": "mine.py"}]},
        {**STARTER, "defense": [{"name": "pgd-at", "label": "a/b"}]},
        {**STARTER, "defense": [{"name": "pgd-at", "training": {"seeds": [1]}}]},
        {**STARTER, "defense": [{"name": "pgd-at", "training": {"epoch": 1}}]},
        {**STARTER, "defense": [{"name": "pgd-at", "collect": {"fosc": {"stpes": 3}}}]},
        {**STARTER, "defense": [{"label": "nothing"}]},
        {**STARTER, "defense": [{"name": "awp", "base": "trades"}]},
        {**STARTER, "defense": [{"name": "awp", "base": {"name": "trads"}}]},
        {**STARTER, "defense": [{"name": "awp", "base": {"name": "trades", "betta": 5}}]},
        {**STARTER, "defense": [{"name": "awp", "base": {"name": "trades", "label": "x"}}]},
        {**STARTER, "defense": [{"name": "awp", "base": {"name": "awp"}}]},
        {**STARTER, "defense": [{"name": "awp", "base": {"file": "mine.py", "label": "x"}}]},
        {**STARTER, "defense": [{"name": "awp", "base": {"name": "trades", "file": "mine.py"}}]},
        {**STARTER, "defense": [{"name": "trades", "base": {"name": "pgd-at"}}]},
    ],
    ids=lambda tables: str(next((v for k, v in tables.items() if STARTER.get(k) != v), "title"))[:60],
)
def test_what_a_task_may_not_say_is_not(right, tables):
    assert not right(tables)


def test_every_part_is_there(made):
    def constants(name: str) -> list[str]:
        branches = [b["properties"]["name"] for b in made["$defs"][name]["anyOf"] if "name" in b.get("required", [])]
        # A library's networks are a pattern: "^timm:.".
        return [b["const"] if "const" in b else b["pattern"].strip("^:.") for b in branches]

    assert constants("model") == find.names(find.PACKAGE / "models")
    assert constants("attack") == find.names(find.PACKAGE / "attacks")
    assert sorted(made["$defs"]["collect"]["properties"]) == find.names(find.PACKAGE / "collectors")
    assert constants("defense") == find.names(find.shipped("baselines"))
    assert made["$defs"]["Data"]["properties"]["name"]["enum"] == find.names(find.PACKAGE / "data")


def test_fields_carry_their_meaning_default_and_bounds(made):
    training = made["$defs"]["Training"]["properties"]
    assert training["lr"] == {
        "default": 0.1,
        "description": "Peak learning rate.",
        "exclusiveMinimum": 0,
        "type": "number",
    }
    [pgd] = [b for b in made["$defs"]["defense"]["anyOf"] if b["properties"]["name"] == {"const": "pgd-at"}]
    assert pgd["properties"]["steps"]["description"].startswith("Ascent steps K")
    assert pgd["properties"]["steps"]["minimum"] == 1
    assert pgd["description"] == "PGD-AT (Madry et al. 2018)."
    assert pgd["properties"]["label"]["description"].startswith("Names paths and rows")


def test_nothing_points_nowhere(made):
    text = json.dumps(made)
    named = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}

    assert named <= made["$defs"].keys()
    assert made["$defs"].keys() - named == set(), "nor is anything there that nothing points to"


def test_titles_and_words_of_the_library_are_left_out(made):
    assert '"discriminator"' not in json.dumps(made)
    assert made["title"] == "A task file of advbench"

    def titles(node: Any) -> int:
        if isinstance(node, list):
            return sum(map(titles, node))
        return ("title" in node) + sum(map(titles, node.values())) if isinstance(node, dict) else 0

    assert titles(made) == 2, "that of the whole, and a task's own field"


def test_what_stands_outside_a_choice_is_said_once(made):
    training = made["$defs"]["Training"]["properties"]

    assert training["seeds"] == {
        "default": [0, 1, 2],
        "description": "One job each; a number means that many: 0, 1, 2, ...",
        "anyOf": [
            {"items": {"type": "integer"}, "minItems": 1, "type": "array"},
            {"type": "integer", "minimum": 1, "maximum": MOST},
        ],
    }
    assert "seeds" not in made["$defs"]["changes"]["properties"]
    study = made["$defs"]["study"]["anyOf"][-1]["properties"]
    assert study["name"] is False
    assert study["seeds"]["description"]
    assert made["$defs"]["defense"]["anyOf"][-1]["properties"]["label"]["description"]


def test_the_command_prints_the_schema_and_nothing_else(tmp_path: Path, command, made):
    done = command(tmp_path, "schema")

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == made
