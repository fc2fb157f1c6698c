"""A stranger's file: run once for the same bytes, known by what it does, or refused in a line."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from advbench import load
from advbench.attacks.base import Attack
from advbench.collectors.base import Collector
from advbench.defense import Defense
from advbench.identity import code
from advbench.load import classes, module, names, own
from advbench.spec import BadInput, Part
from advbench.study import Study

DEFENSE = """\
from advbench.defense import Defense as Base

class Mine(Base):
    name = "mine"
    paper = "a test"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(DEFENSE, "utf-8")
    return path


def line(kind: type[Part], path: Path) -> str:
    with pytest.raises(BadInput) as refused:
        own(kind, path)
    [said] = refused.value.lines
    assert said.startswith(f"{path}: ")
    return said.removeprefix(f"{path}: ")


def test_a_part_is_a_file_of_its_folder_by_its_name(tmp_path: Path):
    for name in ("b_c.py", "a.py", "base.py", "__init__.py", "library.py", "notes.txt"):
        (tmp_path / name).touch()

    assert names(tmp_path) == ["a", "b-c"]
    assert "input-spectrum" not in names(load.PACKAGE / "collectors")
    assert {"fosc", "input-hessian"} <= set(names(load.PACKAGE / "collectors"))


def test_the_one_class_that_a_file_defines_is_its_own(file: Path):
    made = own(Defense, file)

    assert (made.name, made.sha256) == ("mine", code(DEFENSE.encode()))
    assert classes(sys.modules[made.__module__], Defense) == [made], "what it imports is not counted"
    digest = hashlib.sha256(DEFENSE.encode()).hexdigest()
    assert made.__module__ == f"advbench_defense_mine_{digest[:12]}"
    assert sys.modules[made.__module__].Mine is made
    assert inspect.getsource(made) == DEFENSE.partition("\n\n")[2]


def test_the_same_bytes_are_run_once_and_others_anew_however_quickly_they_come(file: Path):
    first, stat = own(Defense, file), file.stat()
    assert own(Defense, file) is first

    file.write_text(DEFENSE.replace("a test", "a word"), "utf-8")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert own(Defense, file).paper == "a word"
    assert first.paper == "a test"


def test_a_file_can_be_looked_up_by_its_name_while_it_runs(file: Path):
    file.write_text(f"import sys\nHERE = sys.modules[__name__].__dict__ is globals()\n{DEFENSE}", "utf-8")
    assert module(file, "defense").HERE


def test_a_file_knows_where_it_lies(file: Path):
    (file.parent / "beside.txt").write_text("from beside", "utf-8")
    read = "from pathlib import Path\nTEXT = Path(__file__).with_name('beside.txt').read_text()\n"
    file.write_text(DEFENSE.replace('"a test"', "TEXT").replace("class", f"{read}class"), "utf-8")

    assert own(Defense, file).paper == "from beside"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise ValueError('a b')\n", "ValueError: a b (line 2)"),
        ("def f():\n    1 / 0\nf()\n", "ZeroDivisionError: division by zero (line 2)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3 (line 2)"),
        ("import advbench_absent\n", "ModuleNotFoundError: No module named 'advbench_absent' (line 1)"),
    ],
)
def test_what_raises_is_told_with_its_line_and_leaves_no_module(file: Path, text: str, said: str):
    file.write_text(text, "utf-8")
    before = set(sys.modules)

    for _ in range(2):
        assert line(Defense, file) == f"raised on import: {said}"
    assert not [name for name in set(sys.modules) - before if name.startswith("advbench_defense_")]


def test_what_is_no_python_is_told_without_a_line(file: Path):
    file.write_text("class (\n", "utf-8")
    assert line(Defense, file).startswith("raised on import: SyntaxError: ")
    assert "(line 1)" not in line(Defense, file).replace("mine.py, line 1)", "")


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        (Defense, ("class Mine", "class Other(Base):\n    name = paper = 'x'\n\nclass Mine"), "Defense, it has 2"),
        (Defense, ("(Base)", ""), "should define one subclass of advbench.defense.Defense, it has 0"),
        (Defense, ('    name = "mine"\n', ""), 'Mine has no name; add name = "..."'),
        (Defense, ('    paper = "a test"\n', "    x: int = 1\n"), 'Mine has no paper; add paper = "..."'),
        (Defense, ('"mine"', '"my defense"'), "name 'my defense' names folders: use letters, digits and . _ -"),
        (Defense, ('"mine"', '"-mine"'), "name '-mine' names folders: use letters, digits and . _ -"),
        (Attack, ('"mine"', '"pgd"'), "'pgd' is one of the suite's attacks; give it another name"),
        (Collector, ('"mine"', '"x"'), 'Mine has no about; add about = "..."'),
        (Collector, ('"mine"', '"fosc"\n    about = "x"'), "'fosc' is one of the suite's collectors; give it another"),
        (Study, ('"mine"', '"x"\n    about = ""'), 'Mine has no claims; add claims = "..."'),
    ],
)
def test_a_class_that_lacks_something_is_refused(file: Path, kind: type[Part], change: tuple[str, str], said: str):
    text = DEFENSE.replace("advbench.defense import Defense", f"{kind.__module__} import {kind.__name__}")
    assert change[0] in text
    file.write_text(text.replace(*change), "utf-8")

    assert said in line(kind, file)


@pytest.mark.parametrize(("kind", "name"), [(Defense, "pgd-at"), (Attack, "my.Own_attack-2")])
def test_a_defense_may_bear_a_baseline_s_name_and_others_any_new_one(file: Path, kind: Any, name: str):
    text = DEFENSE.replace("advbench.defense import Defense", f"{kind.__module__} import {kind.__name__}")
    file.write_text(text.replace('"mine"', f'"{name}"'), "utf-8")

    assert own(kind, file).name == name


def test_a_file_that_is_none_is_refused(tmp_path: Path, file: Path):
    assert line(Defense, tmp_path / "absent.py") == "cannot be read: No such file or directory"
    file.write_text("x = 1", "utf-8")
    other = file.rename(tmp_path / "mine.txt")
    assert line(Defense, other) == "a defense is a Python file (*.py)"
    with pytest.raises(BadInput, match=r"mine.txt: a model is a Python file \(\*\.py\)"):
        module(other, "model")
