"""Task files: what they mean, and one line for each thing that is wrong with them."""

from __future__ import annotations

import re
import tomllib
from fractions import Fraction
from pathlib import Path

import pytest

from advbench.recipe import Training
from advbench.spec import BadInput
from advbench.task import Data, Defended, Evaluation, Resources, Task, ThreatModel, check, files, read

GOOD = """
version = 1
title = "Digits under Linf 0.15"

[data]
name = "digits"

[model]
name = "digits-cnn"
width = 8

[threat]
norm = "Linf"
eps = "3/20"

[training]
epochs = 30

[evaluation]
attacks = ["fgsm", { name = "pgd", steps = 20 }]
curve = ["1/5", 0.1]

[[defense]]
name = "pgd-at"
steps = 10

[[defense]]
file = "my_defense.py"
label = "mine"
"""


def task(text: str = GOOD) -> Task:
    found, wrong = check(tomllib.loads(text))
    assert wrong == []
    assert found is not None
    return found


def mistakes(old: str, new: str) -> list[str]:
    assert old in GOOD
    found, wrong = check(tomllib.loads(GOOD.replace(old, new)))
    assert found is None
    return wrong


def test_a_good_file_means_what_it_says():
    found = task()

    assert found.threat.eps == Fraction(3, 20)
    assert found.model.fields == {"width": 8}
    assert [a.name for a in found.evaluation.attacks] == ["fgsm", "pgd"]
    assert found.evaluation.attacks[1].fields == {"steps": 20}
    assert found.evaluation.curve == (Fraction(1, 10), Fraction(1, 5)), "radii are sorted"
    assert found.defense[0].fields == {"steps": 10}
    assert (found.defense[1].name, found.defense[1].file, found.defense[1].label) == (None, "my_defense.py", "mine")


def test_a_task_written_out_and_read_again_is_equal():
    found = task()

    again, wrong = check(found.plain())
    assert wrong == []
    assert again == found


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "epochs = 30",
            "epochs = 30\nlearning_rate = 0.1",
            "training: no field 'learning_rate'; known: augment,",
        ),
        ("epochs = 30", "epochs = 30\nmomentun = 0.1", "training: no field 'momentun'; did you mean 'momentum'?"),
        ("[data]", "[dtaa]\n[data]", "no field 'dtaa'; did you mean 'data'?"),
        ("version = 1\n", "", "version is missing"),
        ("version = 1", "version = 2", "version: should be 1, not 2"),
        ("epochs = 30", 'epochs = "30"', 'training.epochs: should be a valid integer, not "30"'),
        ("epochs = 30", "epochs = 0", "training.epochs: should be greater than or equal to 1, not 0"),
        ("epochs = 30", "epochs = 3\nlr = nan", "training.lr: should be a finite number, not NaN"),
        ("epochs = 30", "epochs = 3\nseeds = [0, 0]", "training.seeds: seeds should be distinct and not negative"),
        ("epochs = 30", "epochs = 3\nseeds = [-1]", "training.seeds: seeds should be distinct and not negative"),
        ("epochs = 30", "epochs = 3\nseeds = []", "training.seeds: should hold at least 1"),
        ("epochs = 30", 'epochs = 3\naugment = "cutot"', "training.augment[0]: no 'cutot'; did you mean 'cutout'?"),
        ("epochs = 30", 'epochs = 3\nprecision = "fp16"', "training.precision: should be 'auto', 'fp32' or 'bf16'"),
        ("epochs = 30", "epochs = 3\nmilestones = [0.7, 0.2]", "training.milestones: milestones should be rising"),
        ("epochs = 30", "epochs = 3\nmilestones = [100.0]", "training.milestones: milestones should be rising"),
        ('norm = "Linf"', 'norm = "linf"', "threat.norm: should be 'Linf', 'L2' or 'L1', not \"linf\""),
        ('eps = "3/20"', "eps = 0", "threat: eps should be above 0, not 0"),
        ('eps = "3/20"', 'eps = "-1/8"', "threat: eps should be above 0, not -1/8"),
        (
            'eps = "3/20"',
            "eps = 8",
            "threat: eps should be at most 1 in Linf, where pixels",
        ),
        ('eps = "3/20"', "eps = nan", "threat.eps: nan is not a number or a fraction"),
        ('attacks = ["fgsm", {', 'attacks = ["pgd", {', "evaluation.attacks: attack 'pgd' stands there twice"),
        ('["fgsm", { name = "pgd", steps = 20 }]', "[]", "evaluation.attacks: attacks should name at least one"),
        ('["fgsm", { name = "pgd", steps = 20 }]', "[1]", "evaluation.attacks[0]: should be an object, not 1"),
        ('["fgsm", { name = "pgd", steps = 20 }]', '"fgsm"', 'evaluation.attacks: should be a valid array, not "fgsm"'),
        ('{ name = "pgd", steps = 20 }', "{ steps = 20 }", "evaluation.attacks[1].name is missing"),
        ('["1/5", 0.1]', '["1/5", 0.2]', "evaluation.curve: curve should hold distinct radii above 0"),
        ('["1/5", 0.1]', '["1/5", 0]', "evaluation.curve: curve should hold distinct radii above 0"),
        (
            'file = "my_defense.py"',
            'file = "a.py"\nname = "b"',
            "defense[1]: should have a name or a file",
        ),
        ('file = "my_defense.py"', "", "defense[1]: should have a name or a file"),
        ('label = "mine"', 'label = "a/b"', "defense[1].label: should match pattern"),
        ('label = "mine"', 'label = ".."', "defense[1].label: should match pattern"),
    ],
)
def test_each_mistake_has_its_one_line(old, new, line):
    (found,) = mistakes(old, new)

    assert found.startswith(line)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "epochs = 30",
            "epochs = 3\neps_ramp = 3",
            "training: eps_ramp should end before training does, not after 3 epochs",
        ),
        ('curve = ["1/5", 0.1]', 'curve = ["8"]', "evaluation.curve: a radius should be at most 1 in Linf"),
    ],
)
def test_what_no_run_could_mean_is_refused(old, new, line):
    [mistake] = mistakes(old, new)
    assert mistake.startswith(line)


def test_a_ball_larger_than_the_box_is_meant_in_l2():
    assert task(GOOD.replace('"Linf"', '"L2"').replace('"3/20"', "3")).threat.eps == 3
    assert task(GOOD.replace('"Linf"', '"L1"').replace('"1/5"', "8")).evaluation.curve[-1] == 8


def test_in_linf_the_largest_ball_is_the_box():
    whole = task(GOOD.replace('"3/20"', "1").replace('"1/5"', "1"))

    assert (whole.threat.eps, whole.evaluation.curve) == (1, (Fraction(1, 10), 1))
    assert mistakes('["1/5", 0.1]', '["1/5", 2]') == [
        "evaluation.curve: a radius should be at most 1 in Linf, where pixels lie in [0, 1]"
    ]


def test_the_same_attack_may_stand_twice_under_two_labels():
    text = GOOD.replace('"fgsm", {', '{ name = "pgd", label = "pgd-weak" }, {')

    assert [a.name for a in task(text).evaluation.attacks] == ["pgd", "pgd"]


def test_all_mistakes_of_a_file_are_told_at_once():
    text = GOOD.replace("epochs = 30", 'epochs = "x"').replace('"3/20"', "0").replace("[data]", "[data]\nnaem = 1")

    found, wrong = check(tomllib.loads(text))

    assert found is None
    assert sorted(line.split(":")[0] for line in wrong) == ["data", "threat", "training.epochs"]


def test_a_syntax_error_is_told_with_file_and_line(tmp_path: Path):
    path = tmp_path / "x.toml"
    path.write_text('version = 1\ntitle = "a\n', encoding="utf-8")

    with pytest.raises(BadInput) as error:
        read(path)
    assert len(error.value.lines) == 1
    assert str(error.value).startswith(f"{path}: ")
    assert "line 2" in str(error.value)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_bytes(b"\xff\xfe"), lambda _: None])
def test_a_file_that_cannot_be_read_is_bad_input(tmp_path: Path, make):
    path = tmp_path / "x.toml"
    make(path)

    with pytest.raises(BadInput, match="cannot be read"):
        read(path)


def test_a_folder_means_its_own_files_in_order_and_not_its_subfolders(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    for name in ("b.toml", "a.toml", "sub/c.toml", "README.md"):
        (tmp_path / name).touch()

    assert files([tmp_path]) == [tmp_path / "a.toml", tmp_path / "b.toml"]
    assert files([tmp_path / "sub", tmp_path / "b.toml"]) == [tmp_path / "sub/c.toml", tmp_path / "b.toml"]


def test_a_file_named_beside_its_own_folder_is_meant_once(tmp_path: Path):
    (tmp_path / "a.toml").touch()

    assert files([tmp_path, tmp_path / "a.toml"]) == [tmp_path / "a.toml"]


def test_a_folder_without_task_files_is_bad_input(tmp_path: Path):
    with pytest.raises(BadInput, match=r"no task file \(\*\.toml\) in this folder"):
        files([tmp_path])


def test_a_path_that_is_not_there_is_bad_input(tmp_path: Path):
    with pytest.raises(BadInput, match="no such file or folder"):
        files([tmp_path / "nope.toml"])


def test_two_tasks_of_one_name_are_bad_input(tmp_path: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.toml").touch()

    with pytest.raises(BadInput, match="two task files are called 'x'"):
        files([tmp_path / "one", tmp_path / "two"])


def test_the_readme_of_the_tasks_explains_every_key(repo: Path):
    explained = set(re.findall(r"`\[*([a-z_0-9]+)\]*`\*{0,2} \|", (repo / "tasks" / "README.md").read_text()))
    sections = [Task, Data, ThreatModel, Training, Evaluation, Resources, Defended]

    assert {key for section in sections for key in section.model_fields} <= explained
