"""A checkpoint is used for its own training, on its own kind of device and build, or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advbench.checkpoint import Progress, resume, save
from advbench.defense import TrainState
from advbench.parallel import ALONE, Group
from advbench.seeds import Stream, generator
from advbench.threat import Threat

CPU = torch.device("cpu")


def state(memory: dict[str, Any] | None = None, group: Group = ALONE) -> TrainState:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    return TrainState(
        model, optimizer, Threat("Linf", 0.1), Stream(generator("cpu", 0)), memory=memory or {}, group=group
    )


def test_what_is_saved_comes_back(tmp_path: Path, make_job):
    memory = {"teacher": {"weight": torch.arange(3.0)}, "steps": 7, "names": ["a"]}
    at = Progress(epoch=2, step=3, loss_sum=1.5, reports={"x": (2.0, 4)}, best_key=(0.5, 0.25))
    save(tmp_path / "c.pt", make_job(), CPU, state(memory), at)

    fresh, found = state(), Progress()
    assert resume(tmp_path / "c.pt", make_job(), CPU, fresh, found)

    assert found == at
    assert fresh.memory["teacher"]["weight"].tolist() == [0, 1, 2]
    assert (fresh.memory["steps"], fresh.memory["names"]) == (7, ["a"])


@pytest.mark.parametrize("kept", [np.float64(1), nn.Linear(1, 1), range(3)])
def test_memory_that_could_not_be_read_back_is_refused_when_it_is_written(tmp_path: Path, make_job, kept):
    with pytest.raises(TypeError, match=r"state\.memory should hold tensors, numbers, strings, lists and dicts only"):
        save(tmp_path / "c.pt", make_job(), CPU, state({"mean": kept}), Progress())
    assert not (tmp_path / "c.pt").exists()
    # It may come to be so later, and the checkpoint that can be read stays.
    save(tmp_path / "c.pt", make_job(), CPU, state({"mean": 1.0}), Progress(epoch=1))
    with pytest.raises(TypeError, match=r"state\.memory should hold"):
        save(tmp_path / "c.pt", make_job(), CPU, state({"mean": kept}), Progress(epoch=2))
    found = Progress()
    assert resume(tmp_path / "c.pt", make_job(), CPU, state(), found)
    assert found.epoch == 1


@pytest.mark.parametrize("change", ["job", "torch", "device"])
def test_a_checkpoint_of_another_job_build_or_device_is_left_alone(tmp_path: Path, make_job, monkeypatch, change):
    save(tmp_path / "c.pt", make_job(), CPU, state(), Progress(epoch=1))
    fresh, found = state(), Progress()
    before = fresh.model.state_dict()["weight"].clone()

    job, device = make_job(seed=5) if change == "job" else make_job(), CPU
    if change == "torch":
        monkeypatch.setattr(torch, "__version__", "3.0")
    if change == "device":
        device = torch.device("cuda")

    assert not resume(tmp_path / "c.pt", job, device, fresh, found)
    assert found == Progress()
    assert torch.equal(fresh.model.state_dict()["weight"], before)


SHARED: Any = SimpleNamespace(shared_id="a", seed=0)
"""All that a checkpoint asks of its job."""


def resumed(group: Group) -> list[tuple[bool, int]]:
    """What each process makes of the first one's checkpoint, own build and another; the second one's build is other."""
    found: list[tuple[bool, int]] = []
    mine = torch.__version__ if group.first else "3.0"
    with tempfile.TemporaryDirectory() as folder:
        for build in (mine, "3.0"):
            torch.__version__ = build
            save(Path(folder) / "c.pt", SHARED, CPU, state(group=group), Progress(epoch=7))
            torch.__version__ = mine
            at = Progress()
            found.append((resume(Path(folder) / "c.pt", SHARED, CPU, state(group=group), at), at.epoch))
    return found


def test_the_first_process_decides_for_all_whether_a_checkpoint_is_theirs(ranks):
    assert ranks(resumed, 2) == [[(True, 7), (False, 0)]] * 2


def unreadable(group: Group) -> str:
    """How `resume` ends where the second process cannot take what the first one reads."""

    def load(*_: object, **__: object) -> None:
        raise MemoryError

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "c.pt", SHARED, CPU, state(group=group), Progress(epoch=7))
        if not group.first:
            torch.load = load
        try:
            return str(resume(Path(folder) / "c.pt", SHARED, CPU, state(group=group), Progress()))
        except MemoryError:
            return "raised"


def test_a_process_that_cannot_read_it_fails_and_does_not_start_over_alone(ranks):
    assert ranks(unreadable, 2) == ["True", "raised"]
