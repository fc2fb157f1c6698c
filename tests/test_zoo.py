"""RobustBench's models by name: found, or the nearest name; from the package's cache, or what is missing from it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from torch import nn

from advbench import bridge, zoo
from advbench.spec import BadInput

NAME = "Sehwag2021Proxy_R18"


def refused(*arguments: Any) -> str:
    with pytest.raises(BadInput) as caught:
        zoo.load(*arguments)
    [line] = caught.value.lines
    return line


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and so an empty cache; nothing goes out to the network."""
    bridge.robustbench()
    monkeypatch.chdir(tmp_path)

    def offline(*_: Any, **__: Any) -> Any:
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests.Session, "request", offline)
    return tmp_path / "models" / "cifar10" / "Linf"


def drawn() -> nn.Module:
    from robustbench.model_zoo.architectures.resnet import ResNet18

    torch.manual_seed(3)
    return ResNet18().eval()


def test_a_state_dict_in_the_package_s_cache_is_the_model(cache: Path) -> None:
    model = drawn()
    cache.mkdir(parents=True)
    # As that entry's authors wrote it: from several devices, under a name of its own.
    torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, cache / f"{NAME}.pt")
    found, digests = zoo.load(NAME, "cifar10-jpeg", "Linf", None)

    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(found(x), model(x))
    assert digests == {f"{NAME}.pt": hashlib.sha256((cache / f"{NAME}.pt").read_bytes()).hexdigest()}
    assert zoo.one(digests) == digests[f"{NAME}.pt"]


def test_a_file_that_is_given_stands_for_the_one_in_the_cache(cache: Path, tmp_path: Path) -> None:
    model = drawn()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    found, _ = zoo.load(NAME, "cifar10", "Linf", tmp_path / "mine.pth")
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.state_dict().items())
    assert not cache.exists()


def test_without_a_network_it_says_what_is_missing_and_where(cache: Path) -> None:
    line = refused(NAME, "cifar10", "Linf", None)
    assert line.startswith(f"robustbench:{NAME}: models/cifar10/Linf/{NAME}.pt is not there and cannot be fetched (")
    assert "ConnectionError: Name or service not known" in line
    assert line.endswith("put it there by hand, or give it as --weights")


def test_where_what_was_fetched_cannot_be_written_it_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache.parents[1]).write_text("a file where the folder should be")
    monkeypatch.setattr("robustbench.utils.download_gdrive", lambda _, path: torch.save(drawn().state_dict(), path))
    line = refused(NAME, "cifar10", "Linf", None)
    assert line.startswith(f"models/cifar10/Linf/{NAME}.pt: cannot be written: ")
    assert not cache.exists()


def test_a_web_page_instead_of_a_file_does_not_stay_in_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustbench import utils

    monkeypatch.setattr(utils, "download_gdrive", lambda _, path: Path(path).write_text("<html>quota exceeded</html>"))
    assert "is a web page, not a file of weights" in refused(NAME, "cifar10", "Linf", None)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "data", "norm", "said"),
    [
        ("Sehwag2021Proxy_R81", "cifar10", "Linf", f"for cifar10 and Linf; did you mean '{NAME}'?"),
        ("Rony2019Decoupling", "cifar10", "Linf", "for cifar10 and Linf; it is there for L2"),
        (NAME, "digits", "Linf", "its models are for cifar10, cifar10-jpeg, cifar100, imagenet, and the task's data"),
        (NAME, "cifar10", "L1", "its models are for Linf or L2, and the task's threat is L1"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_the_nearest(name: str, data: str, norm: str, said: str) -> None:
    assert said in refused(name, data, norm, None)


def test_weights_of_another_network_and_a_pickle_are_refused(cache: Path, tmp_path: Path) -> None:
    weights = drawn().state_dict()
    del weights["linear.bias"]
    torch.save(weights, tmp_path / "cut.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "pickle.pth")
    line = refused(NAME, "cifar10", "Linf", tmp_path / "cut.pth")
    assert line.startswith(f"robustbench:{NAME}: its weights do not fit its network: ")
    assert 'Missing key(s) in state_dict: "linear.bias"' in line
    assert "was not read" in refused(NAME, "cifar10", "Linf", tmp_path / "pickle.pth")


def test_an_entry_of_several_files_names_them_all(cache: Path, tmp_path: Path) -> None:
    where, files, _ = zoo.entry("Chen2020Adversarial", "cifar10", "Linf")
    assert (where, files) == ("cifar10", [f"Chen2020Adversarial_m{number}.pt" for number in range(3)])
    (tmp_path / "w.pth").touch()
    assert "has 3 files of weights" in refused("Chen2020Adversarial", "cifar10", "Linf", tmp_path / "w.pth")
    several = {"a": "0" * 64, "b": "1" * 64}
    assert zoo.one(several) == hashlib.sha256(("0" * 64 + "1" * 64).encode()).hexdigest()


def test_what_was_fetched_is_kept_and_not_fetched_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn()
    fetched: list[str] = []

    def fetch(drive: str, path: Path) -> None:
        fetched.append(drive)
        torch.save(model.state_dict(), path)

    monkeypatch.setattr("robustbench.utils.download_gdrive", fetch)
    for _ in range(2):
        found, digests = zoo.load(NAME, "cifar10", "Linf", None)
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in found.state_dict().items())
        assert digests == {f"{NAME}.pt": hashlib.sha256((cache / f"{NAME}.pt").read_bytes()).hexdigest()}
    assert fetched == [zoo.entry(NAME, "cifar10", "Linf")[2]["gdrive_id"]]


@pytest.mark.parametrize("before", [None, "0"])
def test_the_package_s_reading_is_restricted_only_while_it_reads(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def load_model(**how: Any) -> nn.Module:
        seen.append(os.environ.get(zoo.FORCE))
        assert how == {"model_name": "n", "model_dir": Path("m"), "dataset": "cifar10", "threat_model": "L2"}
        raise ValueError("w" * 400)

    bridge.robustbench()
    monkeypatch.setattr("robustbench.utils.load_model", load_model)
    monkeypatch.delenv(zoo.FORCE, raising=False)
    if before:
        monkeypatch.setenv(zoo.FORCE, before)
    with pytest.raises(BadInput) as caught:
        zoo._loaded("n", Path("m"), "cifar10", "L2")

    assert (seen, os.environ.get(zoo.FORCE)) == (["1"], before)
    [line] = caught.value.lines
    assert line.rpartition("network: ")[2] == f"ValueError: {'w' * 400}"[:300]


def test_torchvision_s_own_weights_are_no_file_of_the_package() -> None:
    assert zoo.entry("Standard_R50", "imagenet", "Linf")[1] == []
    assert zoo.one({}) is None
