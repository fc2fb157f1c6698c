"""A finished job is never run twice, a changed one always is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advbench import plan, record
from advbench.plan import Item, Job, finished, order, record_folder
from advbench.record import Record, save
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


def test_what_shares_weights_checkpoints_and_verdicts(make_job):
    plain, more = make_job(), make_job(defense={"processes": 2})
    assert more.train_id != plain.train_id
    assert more.shared_id == plain.shared_id != make_job(seed=1).shared_id
    assert make_job(defense={"steps": 3}).shared_id != plain.shared_id

    asked = make_job(collect={"own": {"steps": 3, "file": "a.py", "sha256": "1"}})
    assert asked.judged_id == plain.judged_id != make_job(evaluation={"alone": 3}).judged_id
    moved = make_job(collect={"own": {"steps": 3, "file": "b/a.py", "sha256": "1"}})
    assert asked.id == moved.id != plain.id == make_job(collect={}).id
    own = {"name": "own", "file": "a.py", "sha256": "1"}
    one, other = (make_job(evaluation={"attacks": [own | {"file": file}]}) for file in ("a.py", "b.py"))
    assert one.id == other.id != make_job(evaluation={"attacks": [own | {"sha256": "2"}]}).id


def test_of_a_base_only_its_digest_counts_and_of_any_other_table_all(make_job):
    def job(**base: Any) -> str:
        return make_job(defense={"base": base}).train_id

    assert job(name="a", file="a.py", sha256="1") == job(name="b", file=None, sha256="1") != job(name="a", sha256="2")
    assert job(name="a") != job(name="b"), "no base, for it has no digest"


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


def test_a_line_runs_unless_it_is_cached_or_cannot():
    fresh = item()
    assert (fresh.seconds, fresh.records, fresh.processes, fresh.skip, fresh.cached) == (0, 0, 1, "", False)
    assert (fresh.job, fresh.work, fresh.minutes, fresh.memory_gib, fresh.memory) == (None,) * 5
    ways: list[dict[str, Any]] = [{}, {"skip": "no"}, {"cached": True}, {"skip": "no", "cached": True}]
    assert [item(**how).state for how in ways] == [
        *("run", "skip", "cached", "cached"),
    ]
    assert fresh.own_files == []


def test_a_line_knows_the_files_of_its_user(make_job):
    job = make_job(
        defense={"file": "mine.py", "base": {"file": "base.py"}},
        evaluation={"attacks": [{"name": "fgsm"}, {"name": "own", "file": "own.py"}]},
        collect={"c": {"file": "c.py"}},
    )
    assert sorted(item(job.path, job=job.plain()).own_files) == ["base.py", "c.py", "mine.py", "own.py"]


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


def test_the_record_of_a_job_is_a_whole_one_of_a_job_that_finished(tmp_path: Path, make_job):
    one, twin, failed, broken = (make_job(label=label) for label in ("a", "b", "c", "d"))
    for job, change in ((one, {}), (twin, {}), (failed, {"status": "failed", "id": "f"}), (broken, {"id": "g"})):
        laid(tmp_path, job, **change)
    (record_folder(tmp_path, broken.path) / "examples.parquet").unlink()

    assert plan.known(tmp_path) == {one.id: record_folder(tmp_path, one.path)}
    renamed = item("mine/x-s0", job=one.model_copy(update={"task": "mine", "label": "x"}).plain())
    cached = renamed.model_copy(update={"cached": True})
    assert plan.adopt(cached, tmp_path, {one.id: tmp_path / "absent"}) is cached
    laid(tmp_path, broken)
    found = plan.known(tmp_path)
    (found[one.id] / "examples.parquet").write_bytes(b"hurt since")
    assert plan.adopt(renamed, tmp_path, found) == renamed
    assert not record_folder(tmp_path, renamed.path).exists()


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
