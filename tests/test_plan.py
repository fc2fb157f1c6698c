"""A finished job is never run twice, a changed one always is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench import plan, record
from advbench.plan import Item, Job, finished, order, recall, record_folder, remember, run_folder
from advbench.record import Record, save
from advbench.resolve import resolve
from advbench.spec import validate

CHANGES: list[dict[str, Any]] = [
    {"seed": 1},
    {"data_sha256": "1"},
    {"data": {"name": "mnist"}},
    {"data": {"classes": [0, 1]}},
    {"data": {"train": 100}},
    {"data": {"validation": 10}},
    {"data": {"order": "first"}},
    {"data": {"seed": 1}},
    {"data": {"unlabelled": {"count": 5}}},
    {"model": {"name": "mlp"}},
    {"model": {"hidden": [7]}},
    {"threat": {"norm": "L2"}},
    {"threat": {"eps": "1/11"}},
    {"training": {"epochs": 4}},
    {"training": {"batch": 17}},
    {"training": {"optimizer": "adam"}},
    {"training": {"lr": 0.06}},
    {"training": {"momentum": 0.8}},
    {"training": {"weight_decay": 0.1}},
    {"training": {"schedule": "cosine"}},
    {"training": {"peak": 0.4}},
    {"training": {"milestones": [0.6]}},
    {"training": {"decay": 0.2}},
    {"training": {"eps_ramp": 1}},
    {"training": {"warmup": 1}},
    {"training": {"augment": "crop-flip"}},
    {"training": {"label_smoothing": 0.1}},
    {"training": {"clip_norm": 1}},
    {"training": {"average": 0.99}},
    {"training": {"precision": "bf16"}},
    {"training": {"compile": "on"}},
    {"training": {"stop": "collapse"}},
    {"defense": {"sha256": "1"}},
    {"defense": {"steps": 3}},
    {"threads": 2},
    {"protocol": 3},
    {"deterministic": True},
]
EVALUATION: list[dict[str, Any]] = [
    {"data": {"test": 10}},
    {"evaluation": {"attacks": [{"name": "pgd"}]}},
    {"evaluation": {"attacks": [{"name": "fgsm", "restarts": 2}]}},
    {"evaluation": {"checkpoint": "last"}},
    {"evaluation": {"both": True}},
    {"evaluation": {"curve": ["1/7"]}},
    {"evaluation": {"corruptions": ["fog"]}},
    {"evaluation": {"alone": 3}},
    {"evaluation": {"block": 7}},
    {"evaluation": {"seed": 1}},
    {"evaluation": {"votes": 5}},
    {"evaluation": {"stop": False}},
    {"evaluation": {"distances": True}},
    {"collect": {"fosc": {"steps": 20}}},
    {"evaluation_protocol": 99},
]
NOTHING: list[dict[str, Any]] = [
    {"task": "other"},
    {"title": "Another title"},
    {"label": "another"},
    {"training": {"seeds": [0, 5]}},
    {"training": {"checkpoint_minutes": 1.0}},
    {"data": {"path": "elsewhere.npz"}},
    {"data": {"size": 64}},
    {"evaluation": {"batch": 17}},
    {"defense": {"file": "elsewhere.py"}},
    {"defense": {"name": "renamed"}},
    {"threat": {"eps": 0.1}},  # the same number, written in another way
]


def one_line(change: dict[str, Any]) -> str:
    return str(change)


@pytest.mark.parametrize("change", CHANGES, ids=one_line)
def test_what_can_change_the_weights_makes_another_training(make_job, change):
    assert make_job(**change).train_id != make_job().train_id
    assert make_job(**change).id != make_job().id


@pytest.mark.parametrize("change", EVALUATION, ids=one_line)
def test_what_can_change_only_the_scores_keeps_the_weights(make_job, change):
    assert make_job(**change).train_id == make_job().train_id
    assert make_job(**change).id != make_job().id


@pytest.mark.parametrize("change", NOTHING, ids=one_line)
def test_what_changes_no_result_is_the_same_job(make_job, change):
    assert make_job(**change).id == make_job().id
    assert make_job(**change).train_id == make_job().train_id


def test_where_a_pool_lies_changes_no_result_but_how_much_of_it_is_used_does(make_job):
    def job(**unlabelled: Any) -> Job:
        return make_job(data={"unlabelled": unlabelled})

    # The pool's images are in data_sha256.
    assert job(count=5, path="a.npz").id == job(count=5, path="b.npz").id
    assert job(count=5, path="a.npz").train_id != job(count=6, path="a.npz").train_id


def test_every_field_of_a_job_is_judged_above():
    """A new field of the tables has to be put into one of the lists."""
    judged = {
        (key, *value) if isinstance(value, dict) else (key,)
        for c in CHANGES + EVALUATION + NOTHING
        for key, value in c.items()
    }
    for table in ("data", "threat", "training", "evaluation"):
        fields = set(Job.model_fields[table].annotation.model_fields)  # type: ignore[union-attr]
        assert fields <= {name for first, *rest in judged if first == table for name in rest}, table
    # `deviations` repeats what is in `training`; `accelerator` says where a job may run.
    assert set(Job.model_fields) - {"deviations", "accelerator"} == {first for first, *_ in judged}


def test_an_id_is_stable_over_processes_and_versions_of_python(make_job):
    # A digest of canonical JSON. When this changes (a new field does it), no finished job is recognised any more.
    assert make_job().train_id == "e0c076a56b0de109"
    assert make_job().id == "9fa603e8e0643c39"


def item(path: str = "t/a-s0", **changes: Any) -> Item:
    task, rest = path.split("/")
    label, seed = rest.rsplit("-s", 1)
    return validate(Item, {"task": task, "label": label, "seed": int(seed), "base": ".", **changes})


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("t", True),
        ("a", True),
        ("t/a", True),
        ("t/a-s0", True),
        ("t/*", True),
        ("*-s0", True),
        ("?", True),
        ("t/[ab]", True),
        ("a-s0", False),
        ("T", False),
        ("t/a-s1", False),
        ("b", False),
        ("t/", False),
        ("", False),
    ],
)
def test_only_is_a_glob_on_four_names(pattern, matches):
    assert item().matches(pattern) == matches


def test_the_cheapest_comes_first_and_then_the_longest():
    costs = {"t/a-s0": 5.0, "t/b-s0": 1.0, "t/c-s0": 9.0, "t/d-s0": 5.0}
    found = order([item(path, seconds=cost) for path, cost in costs.items()])

    assert [i.path for i in found] == ["t/b-s0", "t/c-s0", "t/a-s0", "t/d-s0"]
    assert order([]) == []
    assert [i.path for i in order([item()])] == ["t/a-s0"]


def laid(results: Path, job: Job, **changes: Any) -> Record:
    values: dict[str, Any] = {"id": job.id, "label": job.label, "seed": job.seed, "status": "ok", **changes}
    record = Record(task=job.task, defense="d", job=job.plain(), **values)
    beside = {"examples.parquet": b"rows", "adversarial.safetensors": b"pixels"}
    return save(record, record_folder(results, job.path), beside)


@pytest.fixture
def line(make_job) -> Item:
    job = make_job()
    return item(job.path, job=job.plain(), skip="no reason")


def test_a_whole_record_of_this_very_job_is_finished_even_where_it_could_not_run(tmp_path: Path, line):
    assert finished(line, tmp_path) == line
    laid(tmp_path, line.job)

    found = finished(line, tmp_path)
    assert (found.cached, found.skip, found.state) == (True, "", "cached")


def test_a_line_without_a_job_is_never_finished(tmp_path: Path, line):
    laid(tmp_path, line.job)
    unresolved = line.model_copy(update={"job": None})

    assert finished(unresolved, tmp_path) == unresolved


@pytest.mark.parametrize("change", [{"id": "another"}, {"status": "failed"}])
def test_another_job_s_record_or_a_failed_one_is_not_finished(tmp_path: Path, line, change):
    laid(tmp_path, line.job, **change)
    assert not finished(line, tmp_path).cached


@pytest.mark.parametrize("name", ["examples.parquet", "adversarial.safetensors", "record.json"])
def test_a_record_with_a_file_missing_or_damaged_is_not_finished(tmp_path: Path, line, name):
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-2])):
        laid(tmp_path, line.job)
        assert finished(line, tmp_path).cached
        damage(record_folder(tmp_path, line.path) / name)
        assert not finished(line, tmp_path).cached


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))


@pytest.fixture
def kept(tmp_path: Path, tiny: Callable[..., Path], monkeypatch) -> tuple[Path, Path, Path, list[Item]]:
    """(results, task file, data root, items) of a plan that is remembered."""
    (tmp_path / "mine.py").write_text(
        'from advbench.defense import Defense\n\nclass Mine(Defense):\n    name = "mine"\n    paper = "none"\n\n'
        "    def passes(self):\n        return 1, 1\n",
        encoding="utf-8",
    )
    # A copy of the package's file list, so that the test may touch one.
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "train.py").write_text("", encoding="utf-8")
    monkeypatch.setattr("advbench.resolve.PACKAGE", tmp_path / "package")
    task = tiny(tmp_path, "t", more='[[defense]]\nfile = "mine.py"\n')
    found = resolve(task, tmp_path / "data", {})
    remember(tmp_path / "results", task, tmp_path / "data", found.items, found.watched, time.time_ns())
    return tmp_path / "results", task, tmp_path / "data", found.items


def test_a_plan_is_recalled_as_it_was(kept):
    results, task, root, items = kept

    assert recall(results, task, root) == items
    assert recall(results, task, root.parent) is None
    assert recall(results.parent, task, root) is None


@pytest.mark.parametrize("name", ["t.toml", "mine.py", "data/tiny.npz", "package/train.py"])
def test_a_plan_is_forgotten_when_what_it_depends_on_is_written_or_gone(tmp_path: Path, kept, name):
    results, task, root, items = kept
    stat = (tmp_path / name).stat()
    touch(tmp_path / name)
    assert recall(results, task, root) is None
    os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert recall(results, task, root) == items
    (tmp_path / name).unlink()
    assert recall(results, task, root) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"watched": [], "items": [{"nonsense": 1}]}'])
def test_a_damaged_plan_is_resolved_again(kept, text):
    results, task, root, _ = kept
    [file] = (results / "runs" / "plans").glob("*.json")
    file.write_text(text, encoding="utf-8")

    assert recall(results, task, root) is None


def test_where_things_lie():
    assert record_folder(Path("r"), "t/a-s0") == Path("r/records/t/a-s0")
    assert run_folder(Path("r"), "t/a-s0") == Path("r/runs/t/a-s0")
    assert plan.PROTOCOL >= 1


def test_a_job_done_under_another_name_is_adopted_whole(tmp_path: Path, make_job):
    job = make_job()
    old = record.Record.model_validate(
        {"schema": 1, "id": job.id, "task": job.task, "defense": "x", "label": job.label, "seed": job.seed}
        | {"status": "ok", "job": job.plain()}
    )
    record.save(old, plan.record_folder(tmp_path, job.path), {"examples.parquet": b"rows"})
    renamed = job.model_copy(update={"task": "mine", "label": "other"})
    item = plan.Item(task="mine", label="other", seed=job.seed, base=tmp_path, job=renamed)

    assert not plan.finished(item, tmp_path).cached
    adopted = plan.adopt(item, tmp_path, plan.known(tmp_path))

    new = record.load(plan.record_folder(tmp_path, renamed.path) / "record.json")
    assert adopted.cached
    assert (new.task, new.label, new.id) == ("mine", "other", job.id)
    assert record.whole(new, plan.record_folder(tmp_path, renamed.path))
    assert (plan.record_folder(tmp_path, renamed.path) / "examples.parquet").read_bytes() == b"rows"
    # A changed job is another job.
    changed = renamed.model_copy(update={"threads": job.threads + 1})
    assert not plan.adopt(item.model_copy(update={"job": changed}), tmp_path, plan.known(tmp_path)).cached
