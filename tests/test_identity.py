"""What names a result: what a file does counts, and how it says it does not."""

from __future__ import annotations

import ast
import hashlib
import runpy
from pathlib import Path

import pytest

from advbench.identity import code, digest

REPO = Path(__file__).parents[1]
BASELINES = sorted((REPO / "baselines").glob("*.py"))

FILE = '''\
"""A defense."""

import math


class Mine(Base):
    """Ours."""

    steps: int = 3
    """How many."""

    def loss(self, x):
        return f"{x!r:>{self.steps}}" + "a\\n\\nb" * math.floor(1.0)
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""A defense."""', '"""A better one, of two\nlines."""'),
        ('"""A defense."""\n\n', ""),
        ('    """How many."""\n', "    # How many.\n"),
        ('    """Ours."""\n\n', ""),
        ("steps: int = 3\n", "steps: int = (  # three\n        3\n    )\n\n\n"),
        ('"a\\n\\nb" * math', "'a\\n\\nb'*math"),
        ("1.0)", "1.00,)"),
        ("\n", "\r\n"),
    ],
)
def test_words_and_layout_do_not_count(before: str, after: str):
    assert before in FILE
    assert code(FILE.replace(before, after).encode()) == code(FILE.encode())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("= 3", "= 4"),
        ("= 3", "= 3.0"),
        ("= 3", "= True"),
        ("= 3", '= "3"'),
        ("= 3", "= None"),
        (": int = 3", ": int"),
        (": int", ": float"),
        ("Mine", "Yours"),
        ("!r", "!s"),
        (":>{self.steps}", ""),
        (" + ", " - "),
        ('"a\\n\\nb"', '"a\\nb"'),
        ('"a\\n\\nb"', '"""a\n\n\nb"""'),
        ('"a\\n\\nb"', 'b"a\\n\\nb"'),
        ("math.floor(1.0)", "math.floor(x=1.0)"),
        ("math.floor(1.0)", "(math.floor, 1.0)"),
        ("math.floor(1.0)", "[math.floor, 1.0]"),
        ("    def loss", "    @staticmethod\n    def loss"),
        ("    def loss", "    async def loss"),
        ("self, x", "self, x=None"),
        ("self, x", "self, /, x"),
        ("self, x", "self, *, x"),
        ("import math", "from math import *"),
    ],
)
def test_what_a_file_does_counts(before: str, after: str):
    assert before in FILE
    assert code(FILE.replace(before, after).encode()) != code(FILE.encode())


def test_the_order_of_statements_counts():
    assert code(b"a = 1\nb = 2\n") != code(b"b = 2\na = 1\n")
    assert code(b"a(1)(2)") != code(b"a(1, 2)")
    assert code(b"if a:\n b()\nc()\n") != code(b"if a:\n b()\n c()\n")


@pytest.mark.slow
@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_no_mutant_of_a_baseline_has_its_digest(path: Path):
    content = path.read_bytes()
    made = runpy.run_path(str(REPO / "tests" / "mutations.py"))["mutants"](path.name, content)
    found = [code(mutant.applied(content)) for mutant in made]

    assert len(found) > 0 or path.stem == "standard"
    assert code(content) not in found


def test_it_is_the_same_where_python_has_fields_that_are_new(monkeypatch: pytest.MonkeyPatch):
    before = code(FILE.encode())
    # As Python 3.12 has it for `class A[T]` and `def f[T]()`.
    for kind in (ast.ClassDef, ast.FunctionDef):
        if "type_params" not in kind._fields:
            monkeypatch.setattr(kind, "_fields", (*kind._fields, "type_params"))
            monkeypatch.setattr(kind, "type_params", [], raising=False)

    assert code(FILE.encode()) == before == "7c29a4b63a3ae5d555f14ead68571ddecc868312c6842ff0ddd074f2bf91d03f"


@pytest.mark.parametrize("content", [b"def (", b"\0", b"\xff"])
def test_what_is_no_python_has_the_digest_of_its_bytes(content: bytes):
    assert code(content) == hashlib.sha256(content).hexdigest()


def test_the_digest_of_a_value_is_that_of_its_shortest_json_without_what_says_nothing():
    value = {"b": [1, {"c": None, "d": (True, None)}], "a": {"z": "é", "y": 0.5}, "none": None}
    text = '{"a":{"y":0.5,"z":"\\u00e9"},"b":[1,{"d":[true,null]}]}'

    assert digest(value) == hashlib.sha256(text.encode()).hexdigest()[:16]
    assert digest(dict(reversed(value.items()))) == digest(value)
