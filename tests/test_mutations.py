"""What is drawn as a mutant, and what is not: tests/mutations.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutations import draw, mutants


def changes(source: str) -> set[str]:
    return {one.applied(source.encode()).decode() for one in mutants("x.py", source.encode())}


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("a < b <= c", {"(a <= b <= c)", "(a < b < c)"}),
        ("a - b * c", {"(a + b * c)", "a - (b / c)"}),
        ("ä = b or not c", {"ä = (b and (not c))", "ä = b or (c)"}),
        ("a.b += 2", {"pass", "a.b -= 2", "a.b += 3"}),
        ("f(True, 1, 0.5)", {"pass", "f(False, 1, 0.5)", "f(True, 0, 0.5)", "f(True, 1, 1.0)"}),
        ("x = max(y.any(), *z)", {"x = min(y.any(), *z)", "x = max((y.all)(), *z)"}),
        ("x = f(a, b=c)", {"x = f(a, **{})"}),
        ("x = [a for a in b if a]", {"x = [a for a in b if (not (a))]"}),
        ("x = a if a in b else c", {"x = a if (a not in b) else c"}),
        ("def f():\n    return a", {"def f():\n    return None"}),
    ],
)
def test_a_mutant_is_one_change(source: str, wanted: set[str]):
    assert changes(source) == wanted


@pytest.mark.parametrize(
    "source",
    [
        '"""Up to 2 of them."""',
        "x: Annotated[int, 2]",
        "def f(x: Literal[1]) -> Literal[2]: ...",
        "@cache(size=2)\ndef f(): ...",
        "__all__ = [1]",
        'x = f"{a + b:.2f}"',
        'raise BadInput("not", 1 + 1)',
        "assert x > 2",
        'x = open(y, encoding="utf-8")',
        "def f():\n    return None",
    ],
)
def test_wording_types_and_asserts_are_left_alone(source: str):
    assert changes(source) == set()


def test_a_change_elsewhere_draws_no_others(tmp_path: Path):
    folder = tmp_path / "baselines"
    folder.mkdir()
    lines = [f"x{n} = {n} + y{n}" for n in range(20)]
    (folder / "a.py").write_text("\n".join(lines), "utf-8")
    drawn = [one.name for one in draw(tmp_path, "seed")]
    other = [one.name for one in draw(tmp_path, "another")]
    (folder / "a.py").write_text("\n".join(["import os", *lines[:7], "", *lines[8:]]), "utf-8")

    assert [one.name for one in draw(tmp_path, "seed")] == [name for name in drawn if name[1] != lines[7]]
    assert len({name[1] for name in drawn}) == 20
    assert drawn != other


def test_what_is_no_longer_python_is_not_drawn(tmp_path: Path):
    folder = tmp_path / "baselines"
    folder.mkdir()
    (folder / "a.py").write_text("x = f(a=b, *c)", "utf-8")

    assert list(draw(tmp_path, "seed")) == []
