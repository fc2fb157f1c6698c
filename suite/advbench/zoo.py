"""`robustbench:NAME`: a published robust model, by the name that RobustBench (arXiv 2010.09670) gives it.

The package builds the network and knows how each entry's file is laid out. Its files come from the cache folder that
the package has (`models/` in the folder one stands in), or from the network where they are not there yet.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import pickle
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from advbench import bridge, weights
from advbench.files import write_bytes
from advbench.spec import BadInput, did_you_mean

CACHE = Path("models")
"""The package's own default."""
SETS = {"cifar10": "cifar10", "cifar10-jpeg": "cifar10", "cifar100": "cifar100", "imagenet": "imagenet"}
"""Our data sets and what the package calls them."""
FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def entry(name: str, data: str, norm: str) -> tuple[str, list[str], Mapping[str, Any]]:
    """The package's data set, the files of the entry `name`, and the entry. Raises BadInput with the nearest name."""
    bridge.robustbench()
    zoo = importlib.import_module("robustbench.model_zoo.models").model_dicts
    enums = importlib.import_module("robustbench.model_zoo.enums")
    if data not in SETS:
        raise BadInput(f"robustbench:{name}: its models are for {', '.join(SETS)}, and the task's data are '{data}'")
    if norm not in (threat.value for threat in enums.ThreatModel):
        raise BadInput(f"robustbench:{name}: its models are for Linf or L2, and the task's threat is {norm}")
    threats = zoo[enums.BenchmarkDataset(SETS[data])]
    known = threats.get(enums.ThreatModel(norm), {})
    if name not in known:
        elsewhere = [threat.value for threat, models in threats.items() if name in models]
        end = f"; it is there for {', '.join(elsewhere)}" if elsewhere else did_you_mean(f"{name}", known)
        raise BadInput(f"no model 'robustbench:{name}' for {SETS[data]} and {norm}{end}")
    found: Mapping[str, Any] = known[name]
    if SETS[data] == "imagenet" and "Standard" in name:
        files: list[str] = []  # torchvision's own weights, which its constructor brings
    elif isinstance(found["gdrive_id"], list):
        files = [f"{name}_m{number}.pt" for number in range(len(found["gdrive_id"]))]
    else:
        files = [f"{name}.pt"]
    return SETS[data], files, found


def load(name: str, data: str, norm: str, given: Path | None) -> tuple[nn.Module, dict[str, str]]:
    """The model, and the sha256 of each of its files; `given` stands for the one in the cache. Raises BadInput."""
    where, files, about = entry(name, data, norm)
    folder = CACHE / where / norm
    if given is not None and len(files) != 1:
        raise BadInput(f"robustbench:{name}: has {len(files)} files of weights; put {', '.join(files)} into {folder}")
    ids = about["gdrive_id"] if isinstance(about["gdrive_id"], list) else [about["gdrive_id"]]
    paths = [given] if given else [folder / file for file in files]
    for path, drive in zip(paths, ids, strict=False):
        if given is None and not path.is_file():
            _fetch(name, path, drive)
    digests = {file: weights.opened(path)[1] for file, path in zip(files, paths, strict=True)}
    with tempfile.TemporaryDirectory(prefix="advbench-") as place:
        inside = Path(place) / where / norm
        inside.mkdir(parents=True)
        for file, path in zip(files, paths, strict=True):
            (inside / file).symlink_to(path.resolve())
        return _loaded(name, Path(place), where, norm), digests


def one(digests: Mapping[str, str]) -> str | None:
    """A digest for all the files together: of a single one, its own."""
    values = list(digests.values())
    return values[0] if len(values) == 1 else hashlib.sha256("".join(values).encode()).hexdigest() if values else None


def _loaded(name: str, folder: Path, data: str, norm: str) -> nn.Module:
    utils = importlib.import_module("robustbench.utils")
    try:
        with _restricted():
            return utils.load_model(model_name=name, model_dir=folder, dataset=data, threat_model=norm)
    except pickle.UnpicklingError as error:
        raise BadInput(f"robustbench:{name}: its file holds more than tensors: {str(error).splitlines()[0]}") from None
    except Exception as error:  # the package has as many ways to fail as models
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BadInput(f"robustbench:{name}: its weights do not fit its network: {said}") from error


@contextmanager
def _restricted() -> Generator[None]:
    """Whatever the package asks torch to read is read without running any of it."""
    before = os.environ.get(FORCE)
    os.environ[FORCE] = "1"
    try:
        with weights.harmless():
            yield
    finally:
        if before is None:
            del os.environ[FORCE]
        else:
            os.environ[FORCE] = before


def _fetch(name: str, path: Path, drive: str) -> None:
    """Get one file as the package does; it is only ever there whole. Raises BadInput that says what is missing."""
    utils = importlib.import_module("robustbench.utils")
    missing = f"robustbench:{name}: {path} is not there and cannot be fetched"
    with tempfile.TemporaryDirectory(prefix="advbench-") as place:
        fresh = Path(place) / path.name
        try:
            utils.download_gdrive(drive, fresh)
        except Exception as error:  # no network, no such file, a disk that is full
            said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise BadInput(f"{missing} ({said}); put it there by hand, or give it as --weights") from None
        weights.opened(fresh)
        write_bytes(path, fresh.read_bytes())
