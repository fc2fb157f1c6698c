"""One seed of a study: under which switches of torch it runs, what it sees, and what its record says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load as tensors

from advbench import conduct
from advbench.collectors.base import Measures, measure
from advbench.experiment import Experiment
from advbench.plan import record_folder
from advbench.record import load
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.studies.logistic_sharpness import LogisticSharpness
from advbench.study import Setting

TASK = """\
version = 1
title = "L"
[study]
name = "logistic-sharpness"
seeds = 1
[data]
name = "digits"
classes = [0, 1]
"""


def test_a_study_repeats_itself_on_an_accelerator_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []
    monkeypatch.setattr("advbench.conduct.set_up", lambda *_, deterministic: asked.append(deterministic))
    ids: set[str] = set()
    for more in ("", "[resources]\ndeterministic = true\n"):
        (tmp_path / "l.toml").write_text(TASK + more, "utf-8")
        [item] = resolve(tmp_path / "l.toml", tmp_path, {}).items
        assert item.job is not None
        ids.add(item.job.id)
        monkeypatch.setattr(LogisticSharpness, "run", lambda *_: 1 / 0)
        attempt(item, tmp_path, tmp_path, torch.device("cpu"), lambda *_: None)

    assert asked == [False, True]
    assert len(ids) == 2


def test_a_study_has_the_threads_of_its_job_and_is_deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, bool]] = []

    def run(*_: object) -> Measures:
        seen.append((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
        return Measures({claim.name: measure(torch.ones(()), "1", "one") for claim in LogisticSharpness.claims})

    monkeypatch.setattr(LogisticSharpness, "run", run)
    (tmp_path / "l.toml").write_text(TASK, "utf-8")
    [item] = resolve(tmp_path / "l.toml", tmp_path, {}).items
    assert item.job is not None
    item = item.model_copy(update={"job": item.job.model_copy(update={"threads": 2})})
    torch.use_deterministic_algorithms(False)
    record = attempt(item, tmp_path, tmp_path, torch.device("cpu"), lambda *_: None)

    assert record.error is None
    assert seen == [(2, True)]


def test_a_record_has_all_that_the_study_says_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = [claim.name for claim in LogisticSharpness.claims]
    curve, seen = torch.arange(6.0).view(2, 3).T, list[Setting]()
    clock = iter([10.0, 11.23456])

    def run(_: object, setting: Setting) -> Measures:
        seen.append(setting)
        setting.say(1, 2, "half way")
        values = {name: measure(torch.tensor(float(n)), "1", f"{name} found") for n, name in enumerate(names)}
        return Measures(values, {"x": curve}, ("said",))

    monkeypatch.setattr(LogisticSharpness, "run", run)
    monkeypatch.setattr(conduct, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    (tmp_path / "l.toml").write_text(TASK, "utf-8")
    [item] = resolve(tmp_path / "l.toml", tmp_path, {}).items
    assert isinstance(item.job, Experiment)
    item = item.model_copy(update={"job": item.job.model_copy(update={"instead": "mnist", "seed": 3})})
    told: list[object] = []
    record = conduct.conduct(item, tmp_path, tmp_path, torch.device("cpu"), lambda *news: told.append(news))

    assert isinstance(item.job, Experiment)
    assert (record.id, record.task, record.label, record.seed, record.status) == (item.job.id, "l", item.label, 3, "ok")
    assert (record.defense, record.job) == ("logistic-sharpness", item.job.plain())
    assert record.findings
    assert (record.findings.about, record.findings.paper) == (LogisticSharpness.about, LogisticSharpness.paper)
    assert record.findings.plot == LogisticSharpness.plot
    assert [(claim.name, claim.found) for claim in record.findings.claims] == [(n, i) for i, n in enumerate(names)]
    found = record.measures["logistic-sharpness"]
    assert {name: (one.value, one.unit, one.meaning) for name, one in found.items()} == {
        name: (n, "1", f"{name} found") for n, name in enumerate(names)
    }
    assert record.measure_notes == {
        "logistic-sharpness": ("mnist is not here: the embedded digits in its place", "said")
    }
    assert record.cost.train_seconds == 1.235
    assert record.cost.peak_memory_bytes > 0
    assert (record.provenance["stored"], record.provenance["weights_sha256"]) == ("float32", {})
    assert told == [("study", 1, 2, "half way")]
    [setting] = seen
    assert (setting.seed, setting.classes, setting.data.train.labels.unique().tolist()) == (3, 2, [0, 1])
    folder = record_folder(tmp_path, item.job.path)
    assert load(folder / "record.json") == record
    kept = tensors((folder / "measures.safetensors").read_bytes())
    assert list(kept) == ["logistic-sharpness/x"]
    assert torch.equal(kept["logistic-sharpness/x"], curve)


def test_a_study_without_curves_or_notes_leaves_none_and_one_without_data_sees_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[Setting] = []

    def run(_: object, setting: Setting) -> Measures:
        seen.append(setting)
        return Measures({claim.name: measure(torch.ones(()), "1", "one") for claim in LogisticSharpness.claims})

    monkeypatch.setattr(LogisticSharpness, "run", run)
    (tmp_path / "l.toml").write_text(TASK, "utf-8")
    [item] = resolve(tmp_path / "l.toml", tmp_path, {}).items
    assert isinstance(item.job, Experiment)
    without = item.job.model_copy(update={"data": None, "instead": "mnist"})
    for job in (item.job, without):
        planned = item.model_copy(update={"job": job})
        record = conduct.conduct(planned, tmp_path, tmp_path, torch.device("cpu"), lambda *_: None)
        assert record.measure_notes == {}
        assert sorted(path.name for path in record_folder(tmp_path, job.path).iterdir()) == ["record.json"]
    assert [setting.classes for setting in seen] == [2, 0]
    assert seen[1].subsets is None
    changed = item.model_copy(update={"job": item.job.model_copy(update={"data_sha256": "0"})})
    with pytest.raises(RuntimeError, match=r"^the data 'digits' changed since the plan was made; run again$"):
        conduct.conduct(changed, tmp_path, tmp_path, torch.device("cpu"), lambda *_: None)
