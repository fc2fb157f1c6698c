"""A model by its name in a task file, from the plan to the record: trained for real, started from weights for real."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from advbench.board.rows import Row
from advbench.models.linear import Linear
from advbench.plan import Item, run_folder
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.spec import BadInput


def write(folder: Path, classes: int) -> tuple[dict[str, Tensor], str]:
    """A linear model's weights as data/w.safetensors, and the file's digest."""
    torch.manual_seed(7)
    kept = Linear().build((1, 4, 4), classes).state_dict()
    save_file(kept, folder / "data" / "w.safetensors")
    return kept, hashlib.sha256((folder / "data" / "w.safetensors").read_bytes()).hexdigest()


def items(path: Path) -> list[Item]:
    return resolve(path, path.parent / "data", {}).items


SLOW = ("torchvision:shufflenet_v2_x0_5", "resnet18")


@pytest.mark.parametrize("name", ["timm:test_vit", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_it_trains_two_steps_by_the_conveyor(tmp_path: Path, tiny: Any, name: str) -> None:
    patch = "\npatch_size = 2" if name.startswith("timm:") else ""
    table = f'name = "{name}"\nmean = [0.5]\nstd = [0.25]{patch}'
    small = ('path = "tiny.npz"', 'path = "tiny.npz"\ntrain = 32\nvalidation = 8')
    [item] = items(tiny(tmp_path, "t", ('name = "linear"', table), small))
    record = attempt(item, tmp_path / "results", tmp_path / "data", torch.device("cpu"), lambda *_: None)

    assert record.error is None
    assert record.cost.train_forward == record.cost.train_backward == 32
    assert record.job["model"]["name"] == name
    assert record.provenance.get("timm") == (timm.__version__ if patch else None)
    assert Row(record).extra_data is None


def test_a_pretrained_job_is_named_by_its_weights_and_its_record_says_what_they_saw(tmp_path: Path, tiny: Any) -> None:
    table = 'name = "linear"\npretrained = "w.safetensors"\nextra_data = "more of the same"'
    path = tiny(tmp_path, "t", ('name = "linear"', table), ("epochs = 1", "epochs = 1\nlr = 1e-12"))
    [absent] = items(path)
    assert absent.state == "skip"
    assert "put the pretrained weights there" in absent.skip

    kept, digest = write(tmp_path, 4)
    found = resolve(path, tmp_path / "data", {})
    [item] = found.items
    assert item.job is not None
    assert item.job.model == {
        "name": "linear",
        "pretrained": "w.safetensors",
        "extra_data": "more of the same",
        "pretrained_sha256": digest,
    }
    assert tmp_path / "data" / "w.safetensors" in found.watched

    record = attempt(item, tmp_path / "results", tmp_path / "data", torch.device("cpu"), lambda *_: None)
    assert record.error is None
    assert record.provenance["pretrained_head"] == "kept"
    assert Row(record).extra_data == "more of the same"
    # With next to no learning rate the end of training is where it began.
    last = load_file(run_folder(tmp_path / "results", "t/standard-s0") / "last.safetensors")
    for name, value in last.items():
        torch.testing.assert_close(value, kept[name])

    write(tmp_path, 5)
    [other] = items(path)
    assert other.job is not None
    assert other.job.id != item.job.id
    assert other.job.train_id != item.job.train_id


def test_what_does_not_fit_is_a_line_of_the_plan(tmp_path: Path, tiny: Any) -> None:
    path = tiny(tmp_path, "t", ('name = "linear"', 'name = "torchvision:vgg11"\nmean = [0.5]\nstd = [0.25]'))
    with pytest.raises(BadInput, match=r"t\.toml: model\.name: torchvision:vgg11 does not fit images of \(1, 4, 4\)"):
        items(path)
