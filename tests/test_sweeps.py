"""Lists that mean several tasks: their names, their titles, and errors that point at the file."""

from __future__ import annotations

import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from advbench.resolve import resolve
from advbench.spec import BadInput
from advbench.sweeps import expand, first
from advbench.task import check

LINEAR = '[model]\nname = "linear"'
EPS = 'eps = "1/10"'


def named(text: str) -> list[str]:
    variants, errors = expand("t", tomllib.loads(text))
    assert errors == []
    return [variant.name for variant in variants]


def test_a_file_without_lists_is_its_own_only_task():
    raw = tomllib.loads('title = "T"\nmodel = { name = "mlp" }\nthreat = { eps = 1 }')
    [only], errors = expand("t", raw)

    assert (only.name, only.raw, dict(only.places), errors) == ("t", raw, {}, [])


def test_lists_make_their_product_with_the_models_outermost():
    text = (
        'model = ["digits-cnn", { name = "mlp", hidden = [64, 32] }]\nthreat = { norm = "Linf", eps = ["1/10", 0.15] }'
    )

    assert named(text) == [
        "t@digits-cnn@eps=1-10",
        "t@digits-cnn@eps=3-20",
        "t@mlp-hidden=64-32@eps=1-10",
        "t@mlp-hidden=64-32@eps=3-20",
    ]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('model = ["mlp"]', ["t@mlp"]),
        ("threat = { eps = [1] }", ["t@eps=1"]),
        ('[[model]]\nname = "a"\n[[model]]\nname = "b"\nflat = true', ["t@a", "t@b-flat=true"]),
        ('model = ["hub:some/odd name*[x]"]', ["t@hub-some-odd-name-x"]),
    ],
)
def test_only_what_is_a_list_makes_a_name_and_a_list_of_one_does(text, names):
    found = named(text)

    assert found == names
    # Safe in folders, globs and URLs: a name matches itself and needs no quoting.
    assert all(re.fullmatch(r"[A-Za-z0-9._=@-]+", name) and fnmatchcase(name, name) for name in found)


def test_each_task_is_ordinary_and_its_title_says_what_it_is(tmp_path: Path, tiny):
    path = tiny(
        tmp_path, "t", (LINEAR, '[[model]]\nname = "linear"\n[[model]]\nname = "mlp"'), (EPS, 'eps = ["1/10", 0.2]')
    )
    variants, errors = expand("t", tomllib.loads(path.read_text()))
    tasks = [check(variant.raw)[0] for variant in variants]

    assert errors == []
    assert [task and (task.title, task.model.name, str(task.threat.eps)) for task in tasks] == [
        ("Tiny (linear, eps=1/10)", "linear", "1/10"),
        ("Tiny (linear, eps=1/5)", "linear", "1/5"),
        ("Tiny (mlp, eps=1/10)", "mlp", "1/10"),
        ("Tiny (mlp, eps=1/5)", "mlp", "1/5"),
    ]


def test_a_sweep_resolves_into_the_jobs_of_the_files_one_would_write_by_hand(tmp_path: Path, tiny):
    def resolved(path: Path):
        return resolve(path, tmp_path / "data", {}).items

    swept = resolved(tiny(tmp_path, "s", (EPS, 'eps = ["1/10", "1/5"]'), ("seeds = [0]", "seeds = 2")))
    by_hand = resolved(tiny(tmp_path, "h", (EPS, 'eps = "1/5"'), ("seeds = [0]", "seeds = [0, 1]")))

    assert [item.path for item in swept] == [f"s@eps={e}/standard-s{s}" for e in ("1-10", "1-5") for s in (0, 1)]
    assert all(item.job and item.job.task == item.task for item in swept)
    # Names are no part of a job's identity: a sweep takes over what was done without it.
    assert [item.job and item.job.id for item in swept[2:]] == [item.job and item.job.id for item in by_hand]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("model = []", "model: should hold at least 1"),
        ("threat = { eps = [] }", "threat.eps: should hold at least 1"),
        ('model = ["mlp", "mlp"]', "model[1]: 'mlp' stands there twice"),
        ('threat = { eps = ["1/10", 0.2, 0.1] }', "threat.eps[2]: 'eps=1/10' stands there twice"),
        (f'model = ["{"a" * 130}"]', "model[0]: would be called"),
    ],
)
def test_lists_that_cannot_be_one_are_refused(text, line):
    [told] = expand("t", tomllib.loads(text))[1]

    assert told.startswith(line)


def refused(path: Path) -> list[str]:
    with pytest.raises(BadInput) as caught:
        resolve(path, path.parent / "data", {})
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


def test_errors_point_at_the_file_and_are_told_once(tmp_path: Path, tiny):
    path = tiny(
        tmp_path,
        "t",
        (LINEAR, '[[model]]\nname = "linear"\n[[model]]\nname = "mlp"\nhiden = [3]\n[[model]]\nname = "lniear"'),
        (EPS, 'eps = ["1/10", "x", 0]'),
        ('"fgsm"', '"fsgm"'),
    )

    assert refused(path) == [
        "evaluation.attacks[0]: no attack 'fsgm'; did you mean 'fgsm'?",
        "threat.eps[1]: 'x' is not a number or a fraction such as \"8/255\"",
        "threat: eps should be above 0, not 0",
        "model[1]: no field 'hiden'; did you mean 'hidden'?",
        "model[2]: no model 'lniear'; did you mean 'linear'?",
    ]


@pytest.mark.parametrize(("seeds", "found"), [("3", (0, 1, 2)), ("1", (0,)), ("[5, 2]", (5, 2))])
def test_a_number_of_seeds_means_the_first_ones(tmp_path: Path, tiny, seeds, found):
    path = tiny(tmp_path, "t", ("seeds = [0]", f"seeds = {seeds}"))

    assert tuple(item.seed for item in resolve(path, tmp_path / "data", {}).items) == found


@pytest.mark.parametrize("seeds", ["0", "-1", "1_000_000_000"])
def test_a_number_of_seeds_has_bounds(tmp_path: Path, tiny, seeds):
    [line] = refused(tiny(tmp_path, "t", ("seeds = [0]", f"seeds = {seeds}")))

    assert line == f"training.seeds: a number of seeds should lie between 1 and 10,000, not {int(seeds)}"


@pytest.mark.parametrize("seeds", ["true", '"3"', "2.0"])
def test_seeds_are_a_number_or_a_list(tmp_path: Path, tiny, seeds):
    [line] = refused(tiny(tmp_path, "t", ("seeds = [0]", f"seeds = {seeds}")))

    assert line.startswith("training.seeds: should be")


def test_the_example_of_the_readme_makes_the_names_it_says(repo: Path):
    text = (repo / "tasks" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- sweep -->\n```toml\n(.*?)```\n(.*?)models outermost", text, re.DOTALL)
    assert block
    variants, errors = expand("digits", tomllib.loads(block[1]))

    assert errors == []
    assert [variant.name for variant in variants] == re.findall(r"`(digits@[^`]*)`", block[2])


def test_a_name_may_have_120_characters_and_a_number_stand_for_10000_seeds():
    names = [f'model = ["{"a" * length}"]' for length in (118, 119)]  # and two before them: t@

    assert [len(expand("t", tomllib.loads(text))[1]) for text in names] == [0, 1]
    assert first(10_000) == tuple(range(10_000))
    with pytest.raises(ValueError, match="between 1 and 10,000, not 10001"):
        first(10_001)


def test_a_title_that_is_no_text_is_left_for_the_check_to_refuse():
    [variant], _ = expand("t", {"title": 3, "model": ["mlp"]})

    assert variant.raw == {"title": 3, "model": {"name": "mlp"}}
