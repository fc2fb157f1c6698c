"""A finished job that is asked for more or for other measures, and one whose training several processes share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from advbench import find, flags, measures
from advbench.block import Block
from advbench.data.subsets import choose
from advbench.energy import Meter
from advbench.plan import Item, Job, record_folder, run_folder
from advbench.record import MEASURES, Record
from advbench.resolve import resolve
from advbench.run import attempt, run_job
from advbench.stable import stable
from advbench.train import train

CPU = torch.device("cpu")
COLLECT = "\n[collect]\nfosc = { steps = 1, examples = 8 }\n"
ALONG = "\n[collect]\nfosc = { steps = 1, examples = 8, every = 1 }\nmargins = { examples = 8 }\n"


def planned(path: Path) -> Item:
    [item] = resolve(path, path.parent / "data", {}).items
    return item


def done(path: Path, tell: Callable[..., None] = lambda *_: None) -> Record:
    return run_job(planned(path), path.parent / "results", path.parent / "data", CPU, tell)


def boom(*_: Any, **__: Any) -> Any:
    raise AssertionError("done again")


def nothing_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Block, "clean", boom)
    patch.setattr(find.defense(find.shipped("baselines") / "standard.py"), "loss", boom)


def test_what_is_asked_for_later_is_found_on_the_judged_weights(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = done(tiny(tmp_path))
    folder, run = (at(tmp_path / "results", "tiny/standard-s0") for at in (record_folder, run_folder))
    kept = {name: (folder / name).read_bytes() for name in before.files}
    shutil.rmtree(run / "journal")
    (run / "checkpoint.pt").unlink()
    nothing_again(monkeypatch)

    after = done(tiny(tmp_path, more=COLLECT))

    job = planned(tmp_path / "tiny.toml").job
    assert job is not None
    assert (after.id, after.job) == (job.id, job.plain())
    assert after.files.keys() == {*before.files, MEASURES}
    assert {name: (folder / name).read_bytes() for name in kept} == kept
    for name in ("scores", "checkpoints", "history", "provenance", "flags", "best_epoch"):
        assert getattr(after, name) == getattr(before, name)
    seconds = after.cost.collect_seconds
    assert seconds == round(seconds, 3) > 0 == before.cost.collect_seconds
    assert after.cost.model_copy(update={"collect_seconds": 0}) == before.cost
    assert (after.measures.keys(), before.measures) == ({"fosc"}, {})
    other = done(tiny(tmp_path, more=COLLECT.replace("steps = 1", "steps = 2")))
    assert other.measures["fosc"] != after.measures["fosc"]

    # What looks along the training needs another one, and so do weights that are not those that were judged.
    with pytest.raises(AssertionError, match="done again"):
        done(tiny(tmp_path, more=ALONG))
    weights = run / "best.safetensors"
    content = weights.read_bytes()
    for change in (lambda: weights.write_bytes(content + b" "), weights.unlink):
        change()
        with pytest.raises(AssertionError, match="done again"):
            done(tiny(tmp_path, more=COLLECT))


def test_what_was_found_along_a_training_is_part_of_it_and_of_its_cost(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, measures.Found]] = []
    of_job = measures.of_job
    monkeypatch.setattr(measures, "of_job", lambda *asked: (seen.append(of_job(*asked)), seen[-1])[1])

    record = done(tiny(tmp_path, more=ALONG))

    assert [set(epoch.measures or {}) for epoch in record.history] == [{"fosc"}]
    looks = sum(epoch.collect_seconds or 0 for epoch in record.history)
    after = sum(found.seconds for found in seen[0].values())
    assert record.cost.collect_seconds == pytest.approx(looks + after, abs=1e-9)
    assert looks > 0
    assert after > 0
    shutil.rmtree(run_folder(tmp_path / "results", "tiny/standard-s0") / "journal")
    nothing_again(monkeypatch)
    with pytest.raises(AssertionError, match="done again"):
        done(tiny(tmp_path, more="\n[collect]\nmargins = { examples = 8 }\n"))


def test_a_damaged_checkpoint_is_told_and_the_training_is_done_again(tmp_path: Path, tiny: Any) -> None:
    path = tiny(tmp_path)
    before = done(path)
    shutil.rmtree(tmp_path / "results" / "records")
    run = run_folder(tmp_path / "results", "tiny/standard-s0")
    for file in run.glob("checkpoint*"):
        file.unlink()
    (run / "checkpoint.pt").write_bytes(b"torn")
    told: list[tuple[Any, ...]] = []

    again = done(path, lambda *news: told.append(news))

    assert ("note", 0, 0, "standard-s0/checkpoint.pt was damaged: what it held is done again") in told
    assert stable(again) == stable(before)


TWO = """\
from advbench.defense import Defense
from advbench.losses import cross_entropy

class Two(Defense):
    name = "two"
    paper = "none"

    def workers(self):
        return 2

    def passes(self):
        return 1, 1

    def loss(self, state, x, y):
        return cross_entropy(state.model(x), y).mean()
"""


def test_a_training_of_two_processes_is_done_by_who_shares_it(
    tmp_path: Path, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two.py").write_text(TWO, encoding="utf-8")
    item, root = planned(tiny(tmp_path, "t", ('name = "standard"', 'file = "two.py"'))), tmp_path / "data"
    job = item.job
    assert isinstance(job, Job)
    shared: list[str] = []
    placed: list[Any] = []
    asked: list[dict[str, Any]] = []
    of_training = flags.of_training

    def share(one: Item, ready: Any, tell: Any) -> Any:
        shared.append(one.path)
        return train(job, ready.subsets, ready.defense, ready.model, tmp_path / f"{len(shared)}.pt", tell)

    monkeypatch.setattr("advbench.run.here", lambda *where: (placed.append(where), share)[1])
    monkeypatch.setattr(flags, "of_training", lambda *of, **how: (asked.append(how), of_training(*of, **how))[1])
    monkeypatch.setattr(Meter, "joules", lambda _: 12.5)

    given = attempt(item, tmp_path / "given", root, CPU, lambda *_: None, share)
    assert placed == []
    alone = attempt(item, tmp_path / "alone", root, CPU, lambda *_: None)

    assert placed == [(tmp_path / "alone", root, ["cpu", "cpu"])]
    assert shared == ["t/two-s0"] * 2
    for record in (given, alone):
        assert record.error is None
        assert (record.provenance["processes"], record.cost.joules) == (2, None)
    labels = choose(find.read_data(job.data, root), job.data, "cpu").validation.labels.tolist()
    largest = max(labels.count(label) for label in labels) / len(labels)
    assert asked == [{"eps": 0.1, "adversarial": True, "largest": largest}] * 2
