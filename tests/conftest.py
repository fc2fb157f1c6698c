"""What every test may use: one thread, the real data where they lie, a tiny task and the real command."""

from __future__ import annotations

import gc
import os
import runpy
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import forked
import pytest
import tiny_task
import torch
from torch import nn

from advbench.attacks.base import Attack
from advbench.data.base import DataSet, Examples
from advbench.data.digits import Digits
from advbench.data.subsets import choose
from advbench.evaluate import Doubt, evaluate
from advbench.losses import cross_entropy
from advbench.models.digits_cnn import DigitsCnn
from advbench.plan import Job
from advbench.scores import Verdicts
from advbench.spec import validate
from advbench.task import Data, Evaluation
from advbench.threat import Threat

REPO = Path(__file__).resolve().parents[1]

DATA = os.environ.pop("ADVBENCH_DATA", "")
"""Where the tests find data sets. The command, in this process or another, finds those that a test gives it."""

# Sums, and so golden values, depend on the number of threads.
torch.set_num_threads(1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """The long tests stand in few files; to load the others only to leave their tests out takes seconds."""
    if config.option.markexpr != "slow" or not collection_path.name.startswith("test_"):
        return None
    return "mark.slow" not in collection_path.read_text("utf-8") or None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is loaded here stays to the end: looking through it for garbage takes a quarter of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def _shared(name: str) -> Path:
    """`name` in the folder of real data beside the checkout; without it the test is skipped, or fails in CI."""
    path = REPO.parent / "shared" / "data" / name
    if not path.exists():
        reason = f"needs ../shared/data/{name} beside the checkout"
        if os.environ.get("ADVBENCH_REQUIRE_SHARED") == "1":
            pytest.fail(f"{reason}, and ADVBENCH_REQUIRE_SHARED=1 allows no skip")
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def repo() -> Path:
    """The root of the checkout. The package under test may be installed elsewhere."""
    return REPO


@pytest.fixture(scope="session")
def shared_data():
    """A function: file name -> its path in ../shared/data, or the test is skipped with a reason."""
    return _shared


@pytest.fixture(scope="session")
def told_data() -> Path | None:
    """The folder that ADVBENCH_DATA names."""
    return Path(DATA) if DATA else None


@pytest.fixture(scope="session")
def mnist_root(told_data: Path | None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds MNIST in torchvision's layout: $ADVBENCH_DATA where it does, else unpacked once."""
    if told_data and (told_data / "MNIST" / "raw").is_dir():
        return told_data
    root = tmp_path_factory.mktemp("mnist")
    with tarfile.open(_shared("mnist-raw.tar.xz")) as archive:
        archive.extractall(root, filter="data")
    return root


@pytest.fixture(scope="session")
def tiny():
    """A function: folder, name, (old, new)..., more="" -> the task file written there, with its data beside it."""
    return tiny_task.write


def _environment() -> dict[str, str]:
    env = dict(os.environ)
    # A relative PYTHONPATH would lead nowhere from the folder of a test.
    if path := env.get("PYTHONPATH"):
        env["PYTHONPATH"] = os.pathsep.join(str(Path(entry).resolve()) for entry in path.split(os.pathsep))
    return env | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def command_env() -> dict[str, str]:
    """The environment in which tests start the real command."""
    return _environment()


@pytest.fixture(scope="session")
def command(command_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory):
    """A function: working folder, arguments... -> the finished `advbench ARGUMENTS`, run in a process of its own.

    `env`: another environment than `command_env`.
    """

    def run(
        folder: Path, *arguments: str | Path, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        words = [str(argument) for argument in arguments]
        said = tmp_path_factory.mktemp("said")
        out, err = said / "out.txt", said / "err.txt"
        process = forked.forks().Process(target=forked.advbench, args=(words, folder, env or command_env, out, err))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))

    return run


@pytest.fixture(scope="session")
def lay_record() -> Callable[..., Path]:
    """A function: results folder, label, seed, verdicts under attack... -> the folder of the record that says so."""
    return runpy.run_path(str(REPO / "tests" / "hand_made.py"))["lay"]


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    """Jobs set torch's global switches; a test leaves them as it found them."""
    random, deterministic = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_rng_state(random)
    torch.use_deterministic_algorithms(deterministic)
    torch.set_num_threads(1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets: [seconds]."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Examples]:
    """A function: n noisy copies of one random 8x8 pattern for each class, as stored bytes or as floats."""

    def make(n: int, classes: int = 3, seed: int = 0, *, floats: bool = False) -> Examples:
        draw, source = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
        patterns = 0.25 + 0.5 * torch.rand(classes, 1, 8, 8, generator=draw)
        labels = torch.arange(n) % classes
        pixels = (patterns[labels] + 0.1 * torch.randn(n, 1, 8, 8, generator=source)).clamp(0, 1)
        stored = pixels if floats else (255 * pixels).round().to(torch.uint8)
        return Examples(stored, labels, torch.arange(n), 255)

    return make


@pytest.fixture(scope="session")
def make_job() -> Callable[..., Job]:
    """A resolved job on toy data; keyword tables replace fields of its own tables."""

    def make(**changes: Any) -> Job:
        tables: dict[str, Any] = {
            "task": "toy",
            "title": "Toy",
            "label": "toy",
            "seed": 0,
            "data": {"name": "digits"},
            "data_sha256": "0",
            "model": {"name": "linear"},
            "threat": {"norm": "Linf", "eps": "1/10"},
            "training": {"epochs": 3, "batch": 16, "lr": 0.05, "precision": "fp32"},
            "evaluation": {"attacks": [{"name": "fgsm"}]},
            "defense": {"name": "standard", "file": None, "sha256": "0"},
            "threads": 1,
            "accelerator": False,
        }
        for key, value in changes.items():
            tables[key] = {**tables.get(key, {}), **value} if isinstance(value, dict) else value
        return validate(Job, tables)

    return make


@pytest.fixture(scope="session")
def digits() -> DataSet:
    return Digits().load(Path())


@pytest.fixture(scope="session")
def digits_test(digits: DataSet) -> Examples:
    return choose(digits, Data(name="digits"), "cpu").test


@pytest.fixture(scope="session")
def _trained_digits(digits: DataSet) -> dict[str, torch.Tensor]:
    """Weights of a digits-cnn after a second of standard training."""
    data = choose(digits, Data(name="digits"), "cpu").train
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = DigitsCnn().build((1, 8, 8), 10)
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(4):
            for rows in torch.randperm(len(data)).split(64):
                optimizer.zero_grad()
                cross_entropy(model(data.pixels(rows)), data.labels[rows]).mean().backward()
                optimizer.step()
    return model.state_dict()


@pytest.fixture
def digits_cnn(_trained_digits: dict[str, torch.Tensor]) -> nn.Module:
    """A digits-cnn that reads clean digits well and is not robust, in training mode."""
    with torch.random.fork_rng([]):
        model = DigitsCnn().build((1, 8, 8), 10)
    model.load_state_dict(_trained_digits)
    return model


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Verdicts]:
    """A function: `evaluate` with a small curve in blocks of 200; each `folder` is a journal of its own."""

    def make(
        model: nn.Module,
        test: Examples,
        attacks: Sequence[Attack],
        threat: Threat,
        *,
        folder: str = "",
        classes: int = 10,
        key: str = "weights",
        tell: Callable[..., None] = lambda *news: None,
        doubt: Doubt | None = None,
        **how: Any,
    ) -> Verdicts:
        fields = {"attacks": [{"name": "fgsm"}], "curve": ["1/20", "1/5"], "block": 200, **how}
        journal = tmp_path / "journal" / (folder or uuid4().hex)
        asked = (threat, attacks, validate(Evaluation, fields), classes)
        return evaluate(model, test, *asked, journal, key, tell, doubt=doubt)

    return make


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory):
    """A function: a function of the test's file, processes -> what it returned in each of a group of so many."""

    def run(function: Callable[..., Any], world: int) -> list[Any]:
        folder = tmp_path_factory.mktemp("ranks")
        told = (str(sys.modules[function.__module__].__file__), function.__name__)
        started = [forked.forks().Process(target=forked.rank, args=(*told, n, world, folder)) for n in range(world)]
        for process in started:
            process.start()
        for process in started:
            process.join(200)
        said = "\n".join((folder / f"{n}.txt").read_text("utf-8") for n in range(world))
        assert [process.exitcode for process in started] == [0] * world, said
        return [torch.load(folder / f"{n}.pt", weights_only=True) for n in range(world)]

    return run
