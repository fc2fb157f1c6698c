"""Of processes that share a training the first one looks along it, and the others wait."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advbench import find
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.parallel import Group
from advbench.plan import Job
from advbench.spec import validate
from advbench.train import train

JOB: dict[str, Any] = {
    "task": "toy",
    "title": "Toy",
    "label": "toy",
    "seed": 0,
    "data": {"name": "digits"},
    "data_sha256": "0",
    "model": {"name": "linear"},
    "threat": {"norm": "Linf", "eps": "1/10"},
    "training": {"epochs": 3, "batch": 16, "lr": 0.05, "precision": "fp32"},
    "evaluation": {},
    "defense": {"name": "fussy", "file": None, "sha256": "0"},
    "threads": 1,
    "accelerator": False,
}


class Pair(Defense):
    """Two processes, with dropout and noise."""

    name = "pair"
    paper = "none"

    def workers(self) -> int:
        return 2

    def passes(self) -> tuple[float, float]:
        return 1, 1

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        return state.cross_entropy(state.model(state.threat.random_start(x, state.noise)), y)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3))


def shared(group: Group) -> list[Any]:
    """In each of two processes: the weights' sum without looks and with them, and the measures of every epoch."""
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 3
    data = Examples((255 * images).to(torch.uint8), labels, torch.arange(40), 255)
    said: list[Any] = []
    for tables in ({}, {"fosc": {"every": 2}, "updates": {}}):
        collectors = find.collectors(tables)
        job = validate(Job, JOB | {"collect": {one.name: one.plain() for one in collectors} or None})
        subsets, defense = Subsets(data, data, data), Pair()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "c.pt"
            trained = train(job, subsets, defense, network(), file, lambda *_: None, group, collectors)
        said.append(sum(float(value.double().sum()) for value in trained.last.values()))
        said.append([epoch.measures for epoch in trained.history])
    return said


def test_of_two_processes_the_first_looks_and_both_go_on(ranks):
    (weights, nothing, again, looks), other = ranks(shared, 2)

    assert weights == again
    assert nothing == [None] * 3
    assert [set(look) for look in looks] == [{"updates"}, {"fosc", "updates"}, {"fosc", "updates"}]
    assert other[3] == looks
