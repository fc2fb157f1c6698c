"""What collectors find is journalled under all that it depends on, and a record has it as it was found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from advbench import measures
from advbench.along import ALONG
from advbench.collectors.base import Collector, Measures, Scene, measure
from advbench.data.base import Examples
from advbench.measures import Found, beside, fields, found
from advbench.plan import Job
from advbench.record import MEASURES, Measure

TEST = Examples(torch.zeros(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4), 1)
CALLS: list[str] = []


class Own(Collector):
    name = "own"
    paper = about = "a test"
    wide: bool = True

    def collect(self, scene: Scene) -> Measures:
        CALLS.append(self.name)
        values = {"mean": measure(torch.ones(()), "1", "a mean")}
        arrays = {"rows": torch.arange(6.0).view(2, 3).T} if self.wide else {}
        return Measures(values, arrays=arrays)


def looked(job: Job, folder: Path, *collectors: Any, weights: str = "w") -> tuple[dict[str, Found], list[Any], int]:
    """What is found, what was told, and how many collectors were called."""
    told: list[Any] = []
    CALLS.clear()
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return found(job, model, weights, TEST, collectors, folder, lambda *news: told.append(news)), told, len(CALLS)


def plain(one: Found) -> tuple[Any, ...]:
    return one.values, one.notes, {name: value.tolist() for name, value in one.arrays.items()}, one.seconds


@pytest.fixture
def job(make_job) -> Job:
    return make_job(evaluation={"seed": 7})


def test_what_was_found_once_is_read_with_all_that_belongs_to_it(tmp_path: Path, job: Job):
    first, told, calls = looked(job, tmp_path, Own())
    assert (told, calls) == ([("collect", 0, 1, "own"), ("collect", 1, 1, "")], 1)
    again, told, calls = looked(job, tmp_path, Own())
    assert (told, calls) == ([], 0), "nobody is told of what is not done"

    assert plain(again["own"]) == plain(first["own"])
    assert first["own"].arrays["rows"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert first["own"].arrays["rows"].is_contiguous()
    assert first["own"].values == {"mean": Measure(value=1.0, unit="1", meaning="a mean")}


def test_it_depends_on_weights_fields_data_threat_and_seed_and_not_on_how_often_one_looks(tmp_path: Path, make_job):
    job = make_job()
    looked(job, tmp_path, Own())
    same = [Own(every=3)]
    assert [looked(job, tmp_path, one)[2] for one in same] == [0]
    others = [make_job(**change) for change in (
        {"data_sha256": "1"}, {"data": {"test": 3}}, {"threat": {"eps": "1/11"}}, {"evaluation": {"seed": 1}},
        {"evaluation_protocol": 99}, {"threads": 2},
    )]  # fmt: skip
    for other in others:
        assert looked(other, tmp_path, Own())[2] == 1
        assert looked(job, tmp_path, Own())[2] == 1
    assert looked(job, tmp_path, Own(), weights="v")[2] == 1
    assert looked(job, tmp_path, Own(wide=False))[2] == 1


def test_collectors_draw_from_the_seed_of_the_evaluation(tmp_path: Path, job: Job, monkeypatch):
    asked: list[Any] = []

    def tried(*_: Any, seed: int, say: Any) -> Any:
        asked.append(seed)
        yield from ()

    monkeypatch.setattr(measures, "tried", tried)
    looked(job, tmp_path)
    assert asked == [7]


def test_a_damaged_journal_is_a_note(tmp_path: Path, job: Job):
    looked(job, tmp_path, Own())
    file = tmp_path / "own.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    _, told, calls = looked(job, tmp_path, Own())

    assert calls == 1
    assert told[0][:3] == ("note", 0, 0)


def test_a_record_has_values_notes_and_arrays_by_collector():
    one = Measure(value=1.0, unit="1", meaning="a mean")
    both = {
        "a": Found({"mean": one}, ("first",), {"x": torch.ones(2)}, 1.0),
        "b": Found({}, ("not applicable",), {}, 1.0),
    }
    assert fields(both) == {
        "measures": {"a": {"mean": one}},
        "measure_notes": {"a": ("first",), "b": ("not applicable",)},
    }
    along = {"a": (f"{ALONG}: x",), "c": ("y",)}
    notes = {"a": ("first", f"{ALONG}: x"), "b": ("not applicable",), "c": ("y",)}
    assert fields(both, along)["measure_notes"] == notes
    assert list(load(beside(both)[MEASURES])) == ["a/x"]
    assert beside({"b": both["b"]}) == {}


def test_seconds_are_kept_to_the_millisecond_and_a_user_s_code_by_its_digest():
    kept = measures._found(Measures({}, arrays={}), "ab" * 32, 1.23456)
    assert (kept.seconds, kept.notes) == (1.235, ("by a collector of the user's own, sha256 abababababab",))
    assert measures._found(Measures({}, arrays={}), None, 0).notes == ()


def test_a_job_that_asks_for_nothing_finds_nothing(tmp_path: Path, job: Job):
    ready: Any = None
    assert measures.of_job(job, ready, "w", tmp_path, lambda *_: None) == {}
