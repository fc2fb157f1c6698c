"""From a task file to its jobs: every default filled in, every error of a file told at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from advbench import find
from advbench.attacks.fgsm import FGSM
from advbench.data.base import DataSet
from advbench.identity import code
from advbench.plan import Item, Job
from advbench.resolve import resolve
from advbench.spec import BadInput

MINE = """\
from advbench.defense import Defense

class Mine(Defense):
    name = "mine"
    paper = "none"
    norms = ("L2",)
    beta: float = 6.0

    def passes(self):
        return 1, 1
"""


def lines(path: Path) -> list[Item]:
    return resolve(path, path.parent / "data", {}).items


def jobs(path: Path) -> list[Job]:
    found = [item.job for item in lines(path)]
    made = [job for job in found if isinstance(job, Job)]
    assert len(made) == len(found)
    return made


def refused(path: Path) -> list[str]:
    with pytest.raises(BadInput) as caught:
        lines(path)
    assert all(line.startswith(f"{path}: ") for line in caught.value.lines)
    return [line.removeprefix(f"{path}: ") for line in caught.value.lines]


def test_a_job_is_a_defense_and_a_seed_with_every_default_filled_in(tmp_path: Path, tiny):
    path = tiny(
        tmp_path,
        "t",
        ("seeds = [0]", "seeds = [3, 1]"),
        more='[[defense]]\nname = "pgd-at"\nlabel = "short"\nsteps = 2\n',
    )
    found = lines(path)

    assert [item.path for item in found] == ["t/standard-s3", "t/standard-s1", "t/short-s3", "t/short-s1"]
    job = found[2].job
    assert isinstance(job, Job)
    source = (find.shipped("baselines") / "pgd_at.py").read_bytes()
    assert job.defense == {
        "name": "pgd-at",
        "file": None,
        "sha256": code(source),
        "steps": 2,
        "step_size": 0.25,
        "attack_bn": "train",
    }
    assert (job.seed, job.label, job.title, job.threads, job.accelerator) == (3, "short", "Tiny", 1, False)
    assert job.model == {"name": "linear"}
    assert job.evaluation.attacks[0].fields == {"label": None, "restarts": 1}
    assert job.data_sha256 == find.source(job.data).load(tmp_path / "data").sha256
    assert all(item.seconds > 0 and item.base == tmp_path and not item.skip for item in found)
    # More passes take longer.
    assert found[2].seconds > found[0].seconds


def test_a_defense_may_deviate_and_its_record_will_say_so(tmp_path: Path, tiny):
    more = '[defense.training]\nepochs = 4\nbatch = 16\nlr = 0.5\n[[defense]]\nname = "pgd-at"\n'
    deviating, other = jobs(tiny(tmp_path, "t", more=more))

    # Only what is different deviates: the batch is the task's.
    assert deviating.deviations == {"epochs": 4, "lr": 0.5}
    assert (deviating.training.epochs, deviating.training.lr, deviating.training.batch) == (4, 0.5, 16)
    assert other.deviations == {}
    assert (other.training.epochs, other.training.lr) == (1, 0.1)


def test_a_defense_may_be_asked_for_more_than_the_others(tmp_path: Path, tiny):
    more = """[defense.collect]
certified = { crown = false }
fosc = { steps = 3 }
[[defense]]
name = "pgd-at"
[collect]
fosc = { steps = 20 }
margins = {}
"""
    asked, other = jobs(tiny(tmp_path, "t", more=more))

    assert asked.collect is not None
    assert other.collect is not None
    assert list(asked.collect) == ["fosc", "margins", "certified"]
    assert (asked.collect["fosc"]["steps"], other.collect["fosc"]["steps"]) == (3, 20)
    assert asked.collect["certified"]["crown"] is False
    assert list(other.collect) == ["fosc", "margins"]


def test_every_error_of_a_file_is_told_at_once(tmp_path: Path, tiny):
    path = tiny(
        tmp_path,
        "t",
        ('name = "linear"', 'name = "linaer"'),
        ('attacks = ["fgsm"]', 'attacks = ["fgms", { name = "pgd", setps = 3, label = "a" }]'),
        more=(
            "[defense.training]\nepoch = 2\n"
            '[[defense]]\nname = "pgd-ta"\n'
            '[[defense]]\nname = "pgd-at"\nlabel = "b"\nsteps = 0\n'
            '[[defense]]\nfile = "no.py"\n'
            '[[defense]]\nname = "fast-at"\ntraining = { seeds = [1] }\n'
            '[[defense]]\nname = "dat"\ncollect = { fsoc = {}, margins = { examples = 0 } }\n'
        ),
    )
    assert refused(path) == [
        "model: no model 'linaer'; did you mean 'linear'?",
        "evaluation.attacks[0]: no attack 'fgms'; did you mean 'fgsm'?",
        "evaluation.attacks[1]: no field 'setps'; did you mean 'steps'?",
        "defense[1] \"pgd-ta\": no defense 'pgd-ta'; did you mean 'pgd-at'?",
        'defense[2] "pgd-at": steps: should be greater than or equal to 1, not 0',
        f'defense[3] "no.py": {tmp_path / "no.py"}: cannot be read: No such file or directory',
        "defense[5] \"dat\".collect: no collector 'fsoc'; did you mean 'fosc'?",
        'defense[5] "dat".collect.margins.examples: should be greater than or equal to 1, not 0',
        "defense[0] \"standard\".training: no field 'epoch'; did you mean 'epochs'?",
        'defense[4] "fast-at".training: seeds belong to the task, so that all defenses have the same ones',
    ]


def test_structural_errors_stand_beside_those_of_the_parts(tmp_path: Path, tiny):
    path = tiny(
        tmp_path,
        "t",
        ("epochs = 1", 'epochs = "1"'),
        ('name = "npz"', 'name = "npy"'),
        ('attacks = ["fgsm"]', "attacks = 3"),
        more='colour = "red"\n',
    )
    told = refused(path)

    assert any("training.epochs: should be a valid integer" in line for line in told)
    assert "data.name: no data set 'npy'; did you mean 'npz'?" in told
    assert any(line.startswith("evaluation.attacks: ") for line in told)
    assert "defense[0] \"standard\": no field 'colour'" in told


@pytest.mark.parametrize(
    ("ladder", "name"),
    [
        ('["fgsm", { name = "pgd", label = "clean" }]', "clean"),  # the first stage; the attack would never run
        ('["autoattack", { name = "autoattack", label = "again" }]', "apgd-ce"),
        ('[{ name = "pgd", label = "square" }, "autoattack"]', "square"),
    ],
)
def test_two_stages_of_one_name_are_refused(tmp_path: Path, tiny, ladder, name):
    [line] = refused(tiny(tmp_path, "t", ('["fgsm"]', ladder)))

    assert line == f"evaluation.attacks: the rung '{name}' stands there twice; give one of them a label"


def test_two_defenses_of_one_name_need_labels(tmp_path: Path, tiny):
    [line] = refused(tiny(tmp_path, "t", more='[[defense]]\nname = "standard"\n'))
    assert line == "defense 'standard' stands there twice; give one of them a label"

    more = '[[defense]]\nname = "standard"\nlabel = "again"\n'
    assert [item.label for item in lines(tiny(tmp_path, "t", more=more))] == ["standard", "again"]


def test_what_a_part_is_not_defined_for_is_skipped_with_the_reason(tmp_path: Path, tiny):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    found = lines(tiny(tmp_path, "t", more='[[defense]]\nfile = "mine.py"\n'))

    assert [(item.label, item.skip, item.state) for item in found] == [
        ("standard", "", "run"),
        ("mine", "mine is not defined for Linf", "skip"),
    ]
    job = found[1].job
    assert job is not None
    assert (job.defense["file"], job.defense["beta"]) == ("mine.py", 6.0)


def test_an_attack_without_the_norm_is_named_and_skips_every_defense(tmp_path: Path, tiny, monkeypatch):
    monkeypatch.setattr(FGSM, "norms", ("Linf", "L2"))
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    found = lines(tiny(tmp_path, "t", ('"Linf"', '"L1"'), more='[[defense]]\nfile = "mine.py"\n'))

    assert [(item.label, item.skip) for item in found] == [
        ("standard", "the attack 'fgsm' is not defined for L1"),
        ("mine", "mine is not defined for L1; the attack 'fgsm' is not defined for L1"),
    ]


def test_a_task_whose_data_is_missing_is_skipped_with_the_reason(tmp_path: Path, tiny):
    path = tiny(tmp_path, "t", ("seeds = [0]", "seeds = [0, 1]"), ("tiny.npz", "absent.npz"))
    found = resolve(path, tmp_path / "data", {})

    assert [(item.path, item.job, item.state) for item in found.items] == [
        ("t/standard-s0", None, "skip"),
        ("t/standard-s1", None, "skip"),
    ]
    assert all("absent.npz" in item.skip for item in found.items)


@pytest.mark.parametrize("there", [True, False])
def test_a_task_for_an_accelerator_is_resolved_only_where_there_is_one(tmp_path: Path, tiny, monkeypatch, there):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there)
    monkeypatch.setattr("advbench.resolve.rate", lambda *_: (1e-3, 1e-5))
    # Where there is none the data are not even asked for: nobody should fetch them in vain.
    data = () if there else (("tiny.npz", "absent.npz"),)
    [item] = lines(tiny(tmp_path, "t", *data, more="[resources]\naccelerator = true\n"))

    assert (item.job is not None) == there
    assert item.skip == ("" if there else "needs an accelerator, and there is none")


def test_more_examples_than_there_are_is_an_error_of_the_file(tmp_path: Path, tiny):
    [line] = refused(tiny(tmp_path, "t", ('path = "tiny.npz"', 'path = "tiny.npz"\ntest = 33')))
    assert line.startswith("data.test: 33 is more than")


def test_a_pool_is_read_watched_and_part_of_what_a_job_is(tmp_path: Path, tiny):
    field = 'path = "tiny.npz"\nunlabelled = { count = 3, path = "pool.npz" }'
    path = tiny(tmp_path, "t", ('path = "tiny.npz"', field))
    pool = tmp_path / "data" / "pool.npz"
    assert f"{pool} is not there; write it with numpy.savez: image" in lines(path)[0].skip

    ids = []
    for shade in (200, 100):
        np.savez(pool, image=np.full((5, 1, 4, 4), shade, np.uint8))
        found = resolve(path, tmp_path / "data", {})
        assert pool in found.watched
        assert found.items[0].job is not None
        ids.append(found.items[0].job.train_id)
    assert ids[0] != ids[1]


def test_all_that_a_plan_depends_on_is_watched(tmp_path: Path, tiny):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    watched = resolve(tiny(tmp_path, "t", more='[[defense]]\nfile = "mine.py"\n'), tmp_path / "data", {}).watched

    assert {tmp_path / "mine.py", tmp_path / "data" / "tiny.npz"} <= set(watched)
    assert find.shipped("baselines") / "standard.py" in watched
    assert {find.PACKAGE / "train.py", find.PACKAGE / "attacks" / "pgd.py"} <= set(watched)


def test_a_data_set_is_read_once_for_a_whole_plan(tmp_path: Path, tiny):
    loaded: dict[str, DataSet] = {}
    one, other = tiny(tmp_path, "a"), tiny(tmp_path, "b")

    resolve(one, tmp_path / "data", loaded)
    kept = dict(loaded)
    resolve(other, tmp_path / "data", loaded)

    assert len(loaded) == 1
    assert loaded == kept


def test_tasks_of_other_classes_of_one_data_set_do_not_share_what_was_read(tmp_path: Path, tiny):
    loaded: dict[str, DataSet] = {}
    two = tiny(tmp_path, "two", ('path = "tiny.npz"', 'path = "tiny.npz"\nclasses = [1, 3]'))
    found = [resolve(path, tmp_path / "data", loaded).items[0].job for path in (two, tiny(tmp_path, "all"))]

    assert all(
        isinstance(job, Job) and job.data_sha256 == find.read_data(job.data, tmp_path / "data").sha256 for job in found
    )
