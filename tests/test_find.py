"""Names and files to classes, and a line that helps where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from advbench import find
from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector
from advbench.collectors.input_hessian import InputHessian
from advbench.data.base import Source
from advbench.data.digits import Digits
from advbench.identity import code
from advbench.models.base import Model
from advbench.models.digits_cnn import DigitsCnn
from advbench.spec import BadInput
from advbench.task import Data, Defended

DEFENSE = """\
from advbench.defense import Defense

class Mine(Defense):
    name = "mine"
    paper = "none"
    beta: float = 6.0
"""


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (Attack, "pgd", PGD),
        (Collector, "input-hessian", InputHessian),
        (Model, "digits-cnn", DigitsCnn),
        (Source, "digits", Digits),
    ],
)
def test_a_name_is_its_file(kind, name, expected):
    assert find.part(kind, name) is expected


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        (Attack, "pdg", "no attack 'pdg'; did you mean 'pgd'?"),
        (Attack, "auto-attack", "no attack 'auto-attack'; did you mean 'autoattack'?"),
        (Collector, "input-hesian", "no collector 'input-hesian'; did you mean 'input-hessian'?"),
        (Model, "digits_cnn", "no model 'digits_cnn'; did you mean 'digits-cnn'?"),
        (Source, "digit", "no data set 'digit'; did you mean 'digits'?"),
        # What else lies in those folders is no part.
        (Attack, "library", f"no attack 'library'; known: {', '.join(find.names(find.PACKAGE / 'attacks'))}"),
        (Collector, "lanczos", f"no collector 'lanczos'; known: {', '.join(find.names(find.PACKAGE / 'collectors'))}"),
        (Source, "subsets", f"no data set 'subsets'; known: {', '.join(find.names(find.PACKAGE / 'data'))}"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(kind, name, line):
    with pytest.raises(BadInput) as caught:
        find.part(kind, name)
    assert caught.value.lines == (line,)


@pytest.mark.parametrize(("kind", "folder"), [(Attack, "attacks"), (Model, "models"), (Source, "data")])
def test_every_file_of_a_folder_is_the_part_of_its_name(kind, folder):
    listed = find.names(find.PACKAGE / folder)

    assert len(listed) >= 3
    for name in listed:
        assert find.part(kind, name).name == name


def test_a_table_makes_a_part_and_a_part_its_table():
    made = find.named(Attack, {"name": "pgd", "steps": 7})

    assert made == PGD(steps=7)
    assert find.plain(made)["name"] == "pgd"
    assert find.named(Attack, find.plain(made)) == made
    with pytest.raises(BadInput, match=r"no field 'setps'; did you mean 'steps'\?"):
        find.named(Attack, {"name": "pgd", "setps": 7})
    with pytest.raises(BadInput, match=r"steps: should be a valid integer, not \"7\""):
        find.named(Attack, {"name": "pgd", "steps": "7"})
    assert find.source(Data(name="digits")) == Digits()


def test_a_baseline_is_found_by_name_and_a_file_from_the_task_s_folder(tmp_path: Path):
    assert find.defense_file(Defended(name="pgd-at"), tmp_path) == find.shipped("baselines") / "pgd_at.py"
    assert find.defense_file(Defended(file="a/b.py"), tmp_path) == tmp_path / "a" / "b.py"
    assert find.defense_file(Defended(file="/a/b.py"), tmp_path) == Path("/a/b.py")
    with pytest.raises(BadInput, match=r"no defense 'pgd_at'; did you mean 'pgd-at'\?"):
        find.defense_file(Defended(name="pgd_at"), tmp_path)


def test_a_defense_file_is_run_once_and_again_when_it_changes(tmp_path: Path):
    path = write(tmp_path, DEFENSE)
    first = find.defense(path)

    assert (first.name, first().beta) == ("mine", 6.0)
    assert find.defense(path) is first
    write(tmp_path, DEFENSE.replace("6.0", "7.0"))
    assert find.defense(path)().beta == 7.0


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "should define one subclass of advbench.defense.Defense, it has 0"),
        ("from advbench.defense import Defense\n", "it has 0"),
        (f"{DEFENSE}\nclass Two(Mine):\n    name = 'two'\n", "it has 2"),
        (DEFENSE.replace('    paper = "none"\n', ""), "Mine has no paper; add paper = "),
        (DEFENSE.replace('    name = "mine"\n', ""), "Mine has no name; add name = "),
        (DEFENSE.replace('"mine"', '"../mine"'), "name '../mine' names folders"),
        ("import no_such_module_at_all\n", "raised on import: ModuleNotFoundError: No module named"),
        ("\n\nraise ValueError('oh')\n", r"raised on import: ValueError: oh \(line 3\)"),
        ("\nimport sys; sys.exit(4)\n", r"raised on import: SystemExit: 4 \(line 2\)"),
        ("def f(:\n", "raised on import: SyntaxError"),
        (DEFENSE.replace("beta: float = 6.0", "label: str = 'x'"), "a field cannot be called 'label'"),
        (DEFENSE.replace("beta: float = 6.0", "beta = 6.0"), "raised on import: PydanticUserError"),
    ],
)
def test_a_file_that_is_no_defense_is_told_what_it_lacks(tmp_path: Path, text, line):
    path = write(tmp_path, text)
    with pytest.raises(BadInput, match=line) as caught:
        find.defense(path)

    assert caught.value.lines[0].startswith(f"{path}: ")
    # A file that raised is run again the next time, not half remembered.
    if "raised" in line:
        assert not [name for name in sys.modules if name.startswith("advbench_defense_mine") and _of(name, path)]


def _of(name: str, path: Path) -> bool:
    return getattr(sys.modules[name], "__file__", None) == str(path)


@pytest.mark.parametrize(("name", "line"), [("no.py", "cannot be read: No such file"), ("mine.txt", "a Python file")])
def test_a_file_that_cannot_be_one_is_named(tmp_path: Path, name, line):
    write(tmp_path, f"{DEFENSE}# in a file that Python does not run\n", "mine.txt")
    with pytest.raises(BadInput, match=line):
        find.defense(tmp_path / name)


def test_a_job_s_defense_is_the_one_that_was_planned(tmp_path: Path, make_job):
    path = write(tmp_path, DEFENSE)
    digest = code(path.read_bytes())
    job = make_job(defense={"name": "mine", "file": "mine.py", "sha256": digest, "beta": 2.5})

    assert find.job_defense(job, tmp_path).plain() == {"beta": 2.5}
    write(tmp_path, DEFENSE + "\n# explained\n")
    assert find.job_defense(job, tmp_path).plain() == {"beta": 2.5}
    write(tmp_path, DEFENSE + "\nEDITED = True\n")
    with pytest.raises(BadInput, match="changed since the plan was made"):
        find.job_defense(job, tmp_path)


ATTACK = """\
from advbench.attacks.base import Attack

class Mine(Attack):
    name = "mine"
    paper = "none"
    steps: int = 3
"""
COLLECTOR = ATTACK.replace("attacks.base import Attack", "collectors.base import Collector").replace(
    "Attack", "Collector"
)


def test_an_attack_of_one_s_own_is_its_table_and_its_table_is_it(tmp_path: Path):
    digest = code(write(tmp_path, ATTACK).read_bytes())

    made = find.named(Attack, {"name": "mine", "file": "mine.py", "steps": 5}, tmp_path)

    table = find.plain(made, {"file": "mine.py"})
    assert table == {"name": "mine", "file": "mine.py", "sha256": digest, "steps": 5, "label": None, "restarts": 1}
    assert find.named(Attack, table, tmp_path) == made
    assert find.named(Attack, {"file": "mine.py"}, tmp_path).name == "mine"
    assert PGD.sha256 is None, "the suite's own have no file of a user's"


@pytest.mark.parametrize(
    ("kind", "text", "table", "line"),
    [
        (
            Attack,
            ATTACK.replace('"mine"', '"pgd"'),
            {},
            "mine.py: 'pgd' is one of the suite's attacks; give it",
        ),
        (
            Attack,
            ATTACK.replace("class Mine", "class _"),
            {"name": "other"},
            "_ is called 'mine', and here 'other'; use",
        ),
        (Attack, ATTACK, {"sha256": "0"}, "mine.py: changed since the plan was made; run again"),
        (Attack, ATTACK, {"setps": 3}, r"no field 'setps'; did you mean 'steps'\?"),
        (Attack, ATTACK, {"file": 3}, "file should be the path of a Python file"),
        (Attack, ATTACK, {"file": "none.py"}, "none.py: cannot be read: No such file"),
        (Attack, DEFENSE, {}, "should define one subclass of advbench.attacks.base.Attack, it has 0"),
        (Collector, COLLECTOR, {}, 'mine.py: Mine has no about; add about = "..."'),
    ],
)
def test_a_part_of_one_s_own_that_is_none_is_told_why(tmp_path: Path, kind, text, table, line):
    write(tmp_path, text)
    with pytest.raises(BadInput, match=line):
        find.named(kind, {"file": "mine.py", **table}, tmp_path)


def test_a_suite_s_part_takes_no_digest():
    with pytest.raises(BadInput, match="no field 'sha256'"):
        find.named(Attack, {"name": "pgd", "sha256": "0"})
