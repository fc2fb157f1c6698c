"""A checkpoint is used for its own training, on its own kind of device and build, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advbench.checkpoint import Progress, resume, save
from advbench.defense import TrainState
from advbench.seeds import Stream, generator
from advbench.threat import Threat

CPU = torch.device("cpu")


def state(memory: dict[str, Any] | None = None) -> TrainState:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    return TrainState(model, optimizer, Threat("Linf", 0.1), Stream(generator("cpu", 0)), memory=memory or {})


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
def test_memory_that_could_not_be_read_back_is_refused_when_it_is_first_written(tmp_path: Path, make_job, kept):
    with pytest.raises(TypeError, match=r"state\.memory should hold tensors, numbers, strings, lists and dicts only"):
        save(tmp_path / "c.pt", make_job(), CPU, state({"mean": kept}), Progress())
    assert not (tmp_path / "c.pt").exists()


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
