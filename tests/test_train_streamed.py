"""Training does not notice whether its images lie on the device or are read ahead of each step."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advbench import find, train
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense
from advbench.models.linear import Linear
from advbench.task import Defended


def streamed(data: Examples) -> Examples:
    """The same examples, scattered in a larger store."""
    places = torch.randperm(2 * len(data), generator=torch.Generator().manual_seed(0))[: len(data)]
    stored = torch.zeros(2 * len(data), *data.stored.shape[1:], dtype=data.stored.dtype)
    stored[places] = data.stored
    return replace(data, stored=stored, places=places)


def trained(folder: Path, job, subsets: Subsets, defense: Defense) -> train.Trained:
    torch.manual_seed(0)
    model = Linear().build((1, 8, 8), 3)
    return train.train(job, subsets, defense, model, folder / "c.pt", lambda *_: None)


@pytest.mark.parametrize("floats", [False, True])
def test_the_same_weights_and_history_come_out(tmp_path: Path, make_job, blobs, floats: bool):
    parts = [blobs(n, seed=seed, floats=floats) for seed, n in enumerate((70, 30, 10))]
    defense = find.build(find.defense(find.defense_file(Defended(name="pgd-at"), Path())), {"steps": 2})
    one = trained(tmp_path / "a", make_job(), Subsets(*parts), defense)
    other = trained(tmp_path / "b", make_job(), Subsets(*map(streamed, parts)), defense)

    assert all(torch.equal(one.last[name], other.last[name]) for name in one.last)
    assert [replace_seconds(e) for e in one.history] == [replace_seconds(e) for e in other.history]


def replace_seconds(epoch: object) -> object:
    return epoch.model_copy(update={"seconds": 0})  # type: ignore[attr-defined]


class Stops(Defense):
    """Raises in its second step."""

    name = "stops"
    paper = "none"

    def step(self, state, x, y):
        if state.progress > 0:
            raise RuntimeError("no more")
        return torch.zeros(())


def test_a_defense_that_raises_leaves_no_thread(tmp_path: Path, make_job, blobs):
    data = streamed(blobs(70))
    with pytest.raises(RuntimeError, match="no more"):
        trained(tmp_path, make_job(), Subsets(data, data, data), Stops())
    assert "advbench-ahead" not in {thread.name for thread in threading.enumerate()}
