"""Torch's global switches: what repeats itself on the CPU always, and on an accelerator where it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advbench import find, prepare
from advbench.models.base import Model
from advbench.plan import CUBLAS, Item
from advbench.prepare import set_up
from advbench.resolve import resolve
from advbench.seeds import derive

RESET: list[torch.device] = []
"""Devices whose peak of memory is counted anew."""


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """An accelerator, as far as switches go: they can be set without one."""
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", RESET.append)
    RESET.clear()
    monkeypatch.setenv(CUBLAS[0], "")
    monkeypatch.delenv(CUBLAS[0])
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    yield torch.device("cuda:0")
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("asked", [False, True])
def test_an_accelerator_repeats_itself_where_that_is_asked_for(pretended: torch.device, asked: bool):
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    cudnn.benchmark = cudnn.allow_tf32 = matmul.allow_tf32 = True
    if asked:
        set_up(2, pretended, deterministic=True)
    else:
        set_up(2, pretended)

    assert torch.are_deterministic_algorithms_enabled() is asked
    assert torch.backends.cudnn.deterministic is asked
    assert torch.backends.cudnn.benchmark is False
    assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False), "float32 means float32"
    assert (RESET, torch.get_num_threads()) == ([pretended], 2)
    assert os.environ.get(CUBLAS[0]) == (CUBLAS[1] if asked else None)


def test_the_cpu_always_does(pretended: torch.device):
    del pretended
    set_up(1, torch.device("cpu"))

    assert torch.are_deterministic_algorithms_enabled()
    # What torch cannot repeat is refused rather than done.
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))


def lines(folder: Path, tiny: Any, *changes: tuple[str, str], more: str = "") -> list[Item]:
    return resolve(tiny(folder, "t", *changes, more=more), folder / "data", {}).items


def test_a_job_begins_with_the_weights_of_its_seed(tmp_path: Path, tiny, monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(prepare, "set_up", lambda *told, **more: asked.append((*told, more)))
    monkeypatch.setattr(torch.compiler, "reset", lambda: asked.append("reset"))
    monkeypatch.setitem(sys.modules, "torch._dynamo", sys)
    one, other = lines(tmp_path, tiny, ("seeds = [0]", "seeds = 2"), more="[collect]\nfosc = {}\n")
    assert one.job
    assert other.job
    found = [prepare.prepare(item, tmp_path / "data", torch.device("cpu")) for item in (one, other, one)]

    for ready, seed in zip(found, (0, 1, 0), strict=True):
        torch.manual_seed(derive(seed, "init"))
        weights = find.named(Model, {"name": "linear"}).build((1, 4, 4), 4).state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in ready.model.state_dict().items())
    assert asked == [(1, torch.device("cpu"), {"deterministic": False}), "reset"] * 3
    ready = found[0]
    assert (ready.classes, ready.root, ready.base) == (4, tmp_path / "data", tmp_path)
    assert [collector.name for collector in ready.collectors] == ["fosc"]
    assert (ready.defense.name, len(ready.subsets.test)) == ("standard", 32)

    monkeypatch.delitem(sys.modules, "torch._dynamo")
    [plain] = lines(tmp_path, tiny, more="[resources]\nthreads = 2\ndeterministic = true\n")
    assert prepare.prepare(plain, tmp_path / "data", torch.device("cpu")).collectors == []
    assert asked[6:] == [(2, torch.device("cpu"), {"deterministic": True})]


def test_data_are_read_once_for_jobs_in_a_row_and_refused_where_they_changed(tmp_path: Path, tiny, monkeypatch):
    read, times = find.read_data, list[str]()
    monkeypatch.setattr(find, "read_data", lambda data, root: times.append(data.path) or read(data, root))
    [item] = lines(tmp_path, tiny)
    arrays = dict(np.load(tmp_path / "data" / "tiny.npz"))
    np.savez(tmp_path / "data" / "other.npz", **arrays | {"x_test": arrays["x_test"][::-1].copy()})
    [other] = lines(tmp_path, tiny, ("tiny.npz", "other.npz"))
    times.clear()
    prepare._loaded.clear()
    for one in (item, item, other, item):
        prepare.prepare(one, tmp_path / "data", torch.device("cpu"))
    assert times == ["tiny.npz", "other.npz", "tiny.npz"]
    assert len(prepare._loaded) == 1, "no more than one lies in memory"

    assert item.job
    changed = item.model_copy(update={"job": item.job.model_copy(update={"data_sha256": "0" * 64})})
    with pytest.raises(RuntimeError, match="the data 'npz' changed since the plan was made; run again"):
        prepare.prepare(changed, tmp_path / "data", torch.device("cpu"))
