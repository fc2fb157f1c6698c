"""Files of weights from strangers: the tensors come out exactly, and nothing in the file is ever run."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from advbench.spec import BadInput
from advbench.weights import digest, read, renamed

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -2.0])}


class Evil:
    """Unpickled freely, it leaves a mark on the disk."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def equal(found: dict[str, Tensor]) -> bool:
    return found.keys() == STATE.keys() and all(torch.equal(found[name], STATE[name]) for name in STATE)


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read(path)
    [line] = caught.value.lines
    return line


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        (STATE, ""),
        ({"state_dict": STATE, "epoch": 3}, "the state dict under 'state_dict'"),
        ({"net": STATE, "acc": 91.2, "optimizer": {"state": {}, "param_groups": []}}, "the state dict under 'net'"),
        ({"weights of ours": STATE}, "the state dict under 'weights of ours'"),
        ({"model": STATE, "args": argparse.Namespace(lr=0.1)}, "the state dict under 'model'"),
        ({"model": STATE, "acc": np.float64(0.5), "curve": np.arange(3)}, "the state dict under 'model'"),
        ({"ema": {"b": torch.zeros(1)}, "model": STATE}, "the state dict under 'model' (beside it: ema)"),
        ({"model": {"b": torch.zeros(1)}, "state_dict": STATE}, "the state dict under 'state_dict' (beside it: model)"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_state_dict_is_found_wherever_a_script_put_it(tmp_path: Path, holds: Any, said: str, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(holds, path, _use_new_zipfile_serialization=zipped)
    found = read(path)
    assert equal(found.tensors)
    assert found.said == said
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_safetensors_file_is_read_as_it_is(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert equal(read(tmp_path / "w.safetensors").tensors)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run_it(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    torch.save({"state_dict": STATE, "extra": Evil(mark)}, path, _use_new_zipfile_serialization=zipped)
    # The variable by which people switch torch's protection off is not heard here.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")

    assert f"{path}: was not read: it needs {os.mkdir.__module__}.mkdir" in refused(path)
    assert not mark.exists()

    torch.load(path, weights_only=False)
    assert mark.exists(), "the file is harmless, so the test above shows nothing"


def test_a_plain_pickle_and_a_whole_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    assert "plain.pth: " in refused(tmp_path / "plain.pth")
    assert "it needs torch.nn.modules.linear.Linear" in refused(tmp_path / "model.pth")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no file of weights that torch can read: EOFError: "),
        (b"PK\x03\x04 torn", "is no file of weights that torch can read: "),
        (b"\n<!DOCTYPE html><html>", "is a web page, not a file of weights: the download went wrong"),
    ],
)
def test_what_is_no_file_of_weights_is_said_to_be_none(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    assert refused(path).startswith(f"{path}: {said}")


@pytest.mark.parametrize(
    ("holds", "said"),
    [
        ([1, 2], "holds a list, not the state dict of a model"),
        ({"epoch": 3, "lr": 0.1}, "holds no state dict; there is 'epoch', 'lr'"),
        (dict.fromkeys("abcdef", 1), "holds no state dict; there is 'a', 'b', 'c', 'd', 'e'"),
        ({}, "holds no state dict; there is nothing"),
        ({"model": {}, "a": {1: torch.zeros(1)}}, "holds no state dict; there is 'model', 'a'"),
        ({"one": STATE, "two": STATE}, "holds several state dicts (one, two); keep one in a file of its own"),
    ],
)
def test_a_file_without_one_state_dict_says_what_it_holds(tmp_path: Path, holds: Any, said: str) -> None:
    torch.save(holds, tmp_path / "w.pt")
    assert refused(tmp_path / "w.pt") == f"{tmp_path / 'w.pt'}: {said}"


def test_a_torn_safetensors_file_is_told(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    whole = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(whole[:-1])
    assert "is no whole safetensors file" in refused(tmp_path / "w.safetensors")


def test_numbers_that_torch_has_no_name_for_are_named(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    assert "w.safetensors: its numbers are F4, which torch has not; save them as F32" in refused(
        tmp_path / "w.safetensors"
    )


@pytest.mark.filterwarnings("ignore")  # torch speaks of such tensors as it reads them
@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("sparse_coo", torch.Tensor.to_sparse),
        ("sparse_csr", torch.Tensor.to_sparse_csr),
        ("meta", lambda weight: weight.to("meta")),
        ("quantized", lambda weight: torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)),
    ],
)
def test_tensors_without_plain_values_are_refused(tmp_path: Path, kind: str, change: Any) -> None:
    torch.save({"net": STATE | {"a.weight": change(STATE["a.weight"])}}, tmp_path / "w.pth")
    line = f"{tmp_path / 'w.pth'}: a.weight is a {kind} tensor; where it was made, save a dense one with its values"
    assert refused(tmp_path / "w.pth") == line


@pytest.mark.parametrize("before", ["", "module.", "_orig_mod.module."])
def test_a_wrapper_s_words_are_taken_off_every_name(before: str) -> None:
    found, gone = renamed({before + name: value for name, value in STATE.items()}, STATE)
    assert equal(found)
    assert gone == before


def test_names_of_another_network_stay_as_they_are() -> None:
    other = {"module.x": torch.zeros(1), "head.y": torch.zeros(1)}
    assert renamed(other, STATE) == (other, "")
    mixed = {"module.x": torch.zeros(1), "module": torch.zeros(1)}
    assert renamed(mixed, STATE) == (mixed, "")
    assert renamed({}, STATE) == ({}, "")


def test_the_digest_is_of_names_shapes_and_values_and_of_no_order() -> None:
    same = dict(reversed(STATE.items()))
    other = [
        STATE | {"a.bias": torch.tensor([1.0, 2.0])},
        STATE | {"a.weight": STATE["a.weight"].view(3, 2)},
        STATE | {"a.bias": STATE["a.bias"].view(torch.int32)},
        {name.replace("a", "b", 1): value for name, value in STATE.items()},
    ]
    assert digest(same) == digest(STATE)
    assert len({digest(STATE), *map(digest, other)}) == 5
