"""Looks along a training say what the weights are at that moment, and leave no trace in it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advbench import find
from advbench.along import Along
from advbench.attacks.pgd import ascend
from advbench.checkpoint import Progress
from advbench.collect import collect
from advbench.collectors.base import Collector, Measures, NotApplicable, Scene
from advbench.collectors.fosc import Fosc
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState, batch_norm
from advbench.parallel import ALONE
from advbench.plan import Job
from advbench.seeds import derive
from advbench.threat import Threat
from advbench.train import Trained, train

EPOCHS = 5
TABLES: dict[str, dict[str, Any]] = {
    "fosc": {"every": 2, "steps": 3, "random_start": True},
    "margins": {"every": 3, "examples": 7},
    "influence": {"every": 5, "examples": 6},
    "sparsity": {},
    "updates": {},
}


class Stop(Exception):
    """The process is killed."""


class Fussy(Defense):
    """Uses noise, memory, dropout and batch norm, and dies at its step number `life`."""

    name = "fussy"
    paper = "none"
    life: int = -1

    def passes(self) -> tuple[float, float]:
        return 3, 3

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        state.memory["count"] = state.memory.get("count", 0) + 1
        if state.memory["count"] == self.life:
            raise Stop
        return super().step(state, x, y)

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        with batch_norm(state.model, "train"):
            start = state.threat.random_start(x, state.noise)
            x_adv = ascend(state.model, x, y, state.threat, start=start, steps=2, step_size=state.threat.eps / 2)
        return state.cross_entropy(state.model(x_adv), y)


class Spoils(Collector):
    """Does all that a collector should not do."""

    name = "spoils"
    about = "Nothing."
    paper = "none"

    def collect(self, scene: Scene) -> Measures:
        torch.manual_seed(1)
        np.random.seed(2)
        random.seed(3)
        scene.model.train()
        for parameter in scene.model.parameters():
            parameter.requires_grad_(True)
        scene.model(scene.x).sum().backward()
        with torch.no_grad():
            for parameter in scene.model.parameters():
                parameter += 1
        raise RuntimeError("and dies")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3)
    )


@pytest.fixture
def subsets(blobs: Callable[..., Examples]) -> Subsets:
    return Subsets(train=blobs(40), validation=blobs(20, seed=1), test=blobs(10, seed=2))


@pytest.fixture
def go(tmp_path: Path, subsets: Subsets, make_job: Callable[..., Job]):
    """A function: `[collect]` tables, what training changes... -> what it leaves, and its network."""

    def run(
        tables: dict[str, Any] | None,
        file: str,
        life: int = -1,
        more: Sequence[Collector] = (),
        tell: Callable[..., None] = lambda *_: None,
        **training: Any,
    ) -> tuple[Trained, nn.Module]:
        made = [*find.collectors(tables or {}), *more]
        fields = {"epochs": EPOCHS, "batch": 16, "lr": 0.05, "augment": "crop-flip", "checkpoint_minutes": 1e-9}
        job = make_job(training={**fields, **training}, collect={one.name: one.plain() for one in made} or None)
        model, defense = network(), Fussy(life=life)
        return train(job, subsets, defense, model, tmp_path / f"{file}.pt", tell, collectors=made), model

    return run


def plain(trained: Trained) -> list[dict[str, Any]]:
    return [{**epoch.plain(), "seconds": 0, "collect_seconds": 0} for epoch in trained.history]


def told(model: nn.Module) -> list[Any]:
    return [
        *((name, value.tolist()) for name, value in model.state_dict().items()),
        *((p.requires_grad, None if p.grad is None else p.grad.tolist()) for p in model.parameters()),
        *(module.training for module in model.modules()),
    ]


def randomness() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # type: ignore[index]


@pytest.mark.parametrize("average", [0, 0.5])
def test_nothing_of_the_training_depends_on_who_looks(tmp_path: Path, go, average):
    random.seed(0)
    np.random.seed(0)
    without, model = go(None, "without", average=average)
    before = randomness()
    random.seed(0)
    np.random.seed(0)
    seen, other = go(TABLES, "with", more=[Spoils(every=1)], average=average)

    assert randomness() == before
    assert told(other) == told(model)
    for kind in ("last", "best"):
        mine, theirs = getattr(seen, kind), getattr(without, kind)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    extra = {"measures", "collect_seconds"}
    assert [{k: v for k, v in line.items() if k not in extra} for line in plain(seen)] == [
        {k: v for k, v in line.items() if k not in extra} for line in plain(without)
    ]
    assert all(epoch.measures is None and epoch.collect_seconds is None for epoch in without.history)
    kept = [torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("with", "without")]
    for part in ("model", "optimizer", "average", "memory", "noise", "torch"):
        assert str(kept[0][part]) == str(kept[1][part]), part


@pytest.mark.parametrize("average", [0, 0.5])
def test_the_history_has_what_collecting_on_validation_examples_finds(go, subsets: Subsets, average):
    trained, _ = go(TABLES, "c", average=average)

    looks = {epoch.epoch: set(epoch.measures or {}) for epoch in trained.history}
    # Every so many epochs, and the last one.
    assert looks == {
        1: {"updates"},
        2: {"fosc", "updates"},
        3: {"margins", "updates"},
        4: {"fosc", "updates"},
        5: {"fosc", "margins", "influence", "updates"},
    }
    model = network()
    model.load_state_dict(trained.last)
    made = [one for one in find.collectors(TABLES) if one.every and not one.along_only]
    found = collect(model, subsets.validation, Threat("Linf", 0.1), made, seed=derive(0, "along"))
    last = trained.history[-1].measures or {}
    for name, measures in found.items():
        for key, value in measures.values.items():
            # The memory of a training model is laid out by channels, and sums follow the layout.
            assert last[name][key] == pytest.approx(value.value, rel=1e-4, abs=1e-6), (name, key)
    assert trained.notes["fosc"] == (
        "along the training, first after epoch 2, on validation examples: 20 examples, 3 steps from a random point",
    )
    assert trained.notes["updates"][0].startswith("along the training, first after epoch 1: successive steps")
    assert "sparsity" not in trained.notes


def test_a_training_killed_at_any_step_leaves_the_same_history(go):
    whole, _ = go(TABLES, "whole")
    for life in (2, 5, 9):  # three steps an epoch: inside one, at its end, inside another
        with pytest.raises(Stop):
            go(TABLES, f"{life}", life=life)
        again, _ = go(TABLES, f"{life}")

        assert plain(again) == plain(whole)
        assert again.notes == whole.notes


def test_pairs_of_steps_lie_in_one_epoch_whatever_every(go):
    often, _ = go({"updates": {"every": 1}}, "often")
    seldom, _ = go({"updates": {"every": 2}}, "seldom")

    assert [bool(epoch.measures) for epoch in seldom.history] == [False, True, False, True, True]
    assert all(epoch.measures in (None, often.history[n].measures) for n, epoch in enumerate(seldom.history))


def test_a_history_that_lacks_something_is_made_anew_and_one_that_has_more_is_taken_over(go):
    words: list[str] = []

    def again(tables: dict[str, Any] | None) -> list[dict[str, Any]]:
        words.clear()
        return plain(go(tables, "c", tell=lambda *news: words.append(news[3]))[0])

    asked = {"fosc": {"every": 2}, "margins": {"every": 3}}
    both = again(asked)
    assert words[0] != "resumed"
    # Collecting at the end alone is no reason to train again, nor is less; and the rest is not forgotten.
    assert [line.get("measures") for line in again({"fosc": {}})] == [None] * EPOCHS
    assert words == ["resumed"]
    assert [list(line.get("measures", {})) for line in again({"margins": {"every": 3}})] == [
        [],
        [],
        ["margins"],
        [],
        ["margins"],
    ]
    assert words == ["resumed"]
    assert again(asked) == both
    assert words == ["resumed"]
    assert again({"margins": {"every": 2}})[1]["measures"].keys() == {"margins"}
    assert words[0] != "resumed"


def test_what_fails_is_a_note_said_once_and_is_tried_again(go, monkeypatch: pytest.MonkeyPatch):
    whole, _ = go({"fosc": {"every": 1}}, "whole")
    looks = 0
    right = Fosc.collect

    def fails(self: Fosc, scene: Scene) -> Measures:
        nonlocal looks
        looks += 1
        if looks <= 2:
            raise RuntimeError("no such luck")
        if looks == 3:
            raise NotApplicable("it is Tuesday")
        return right(self, scene)

    monkeypatch.setattr(Fosc, "collect", fails)
    trained, _ = go({"fosc": {"every": 1}}, "c")

    assert [bool(epoch.measures) for epoch in trained.history] == [False, False, False, True, True]
    assert [epoch.measures for epoch in trained.history[3:]] == [epoch.measures for epoch in whole.history[3:]]
    failed, refused, found = trained.notes["fosc"]
    assert failed.startswith(
        "along the training, first after epoch 1, on validation examples: failed: RuntimeError: no"
    )
    assert refused.endswith("first after epoch 3, on validation examples: not applicable: it is Tuesday")
    assert found.endswith("first after epoch 4, on validation examples: 20 examples, 20 steps from the clean image")


def test_a_training_that_stops_at_a_collapse_is_looked_at_there(subsets: Subsets, monkeypatch: pytest.MonkeyPatch):
    model, at = network(), Progress(epoch=3, history=[{}], stopped=True)
    along = Along([Fosc(every=10)], torch.optim.SGD(model.parameters(), 0.1), 20, ALONE)
    clock, said = iter([10.0, 11.23456]), list[str]()
    with monkeypatch.context() as patched:
        patched.setattr("advbench.along.time", SimpleNamespace(perf_counter=lambda: next(clock)))
        along.look(model, subsets.validation, Threat("Linf", 0.1), at, said.append)

    assert at.history[0]["measures"].keys() == {"fosc"}
    assert at.history[0]["collect_seconds"] == 1.235
    assert said == ["collecting: fosc"]
    assert along.turns is None, "nobody watches the steps"
    at = Progress(epoch=3, history=[{}])
    along.look(model, subsets.validation, Threat("Linf", 0.1), at, lambda _: None)
    assert at.history == [{}]
