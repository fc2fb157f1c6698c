"""One seed of a study: under which switches of torch it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advbench.collectors.base import Measures, measure
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.studies.logistic_sharpness import LogisticSharpness

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
