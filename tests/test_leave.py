"""What an evaluation leaves beside its scores says what was, and where it comes from."""

from __future__ import annotations

import io
import platform
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load

import advbench
from advbench import leave, machine
from advbench.ledger import CLEAN, STANDING, Ledger


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
@pytest.mark.parametrize("peaks", [(700, 300), (300, 700)])
def test_memory_is_the_peak_of_this_process_or_of_the_largest_that_it_started(monkeypatch, system, unit, peaks):
    both = dict(zip((resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN), peaks, strict=True))
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=both[who]))
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)

    assert leave.memory(torch.device("cpu")) == 700 * unit
    assert leave.memory(torch.device("cuda")) == 5


def test_provenance_says_all_that_a_result_may_depend_on(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leave, "_git", lambda: "abc+")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a {device}")
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(2)
    found = leave.provenance(torch.device("cpu"), {"best": "12"}, torch.uint8)

    date = found.pop("date")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", date)
    assert abs((datetime.now(UTC) - datetime.fromisoformat(date)).total_seconds()) < 60
    assert found == {
        "advbench": advbench.__version__,
        "torch": torch.__version__,
        **{name: version(name) for name in ("torchvision", "pyautoattack", "numpy", "scikit-learn")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": machine.cpu(),
        "threads": 2,
        "dtype": "float32",
        "stored": "uint8",
        "deterministic": True,
        "weights_sha256": {"best": "12"},
        "git": "abc+",
        "host": platform.node(),
    }
    assert leave.provenance(torch.device("cuda:1"), {}, torch.float32)["device"] == "a cuda:1"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that the suite seems to lie in."""
    monkeypatch.setattr(leave, "__file__", str(tmp_path / "leave.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "__init__.py").touch()
    leave._git.cache_clear()  # pyright: ignore[reportPrivateUsage]
    yield tmp_path
    leave._git.cache_clear()  # pyright: ignore[reportPrivateUsage]


def commit() -> str | None:
    leave._git.cache_clear()  # pyright: ignore[reportPrivateUsage]
    return leave._git()  # pyright: ignore[reportPrivateUsage]


def test_the_commit_is_that_of_the_checkout_and_of_no_other(checkout: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", "-C", checkout, *who, *words], check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert commit() is None
    git("init", "-q")
    assert commit() is None, "somebody else's repository does not track it"
    git("add", ".")
    git("commit", "-q", "-m", "first")
    head = git("rev-parse", "--short", "HEAD")
    assert commit() == head
    (checkout / "__init__.py").write_text("x = 1\n", "utf-8")
    assert commit() == f"{head}+"
    assert capfd.readouterr() == ("", "")

    run = subprocess.run
    seconds: list[float] = []

    def slow(words: list[str], **how: Any) -> Any:
        seconds.append(how["timeout"])
        if how["timeout"] == 10:
            raise subprocess.TimeoutExpired(words, how["timeout"])
        return run(words, **how)

    monkeypatch.setattr(subprocess, "run", slow)
    assert commit() is None
    assert len(seconds) == 1
    monkeypatch.setenv("PATH", str(checkout))
    monkeypatch.setattr(subprocess, "run", run)
    assert commit() is None, "without git, too"


def judged(n: int, *, detector: bool = False) -> Any:
    """A ledger of which the first example was wrong, the second stands and the others fell to the rung `pgd`."""
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1) / n
    ledger = Ledger.open(x, torch.arange(n) % 3, 100 + torch.arange(n))
    ledger.broken_by = torch.zeros(n, dtype=torch.int64)
    ledger.broken_by[:2] = torch.tensor([CLEAN, STANDING])
    ledger.predicted[0] = 2
    ledger.margin = torch.arange(n) / 2.0
    ledger.distance[2:] = 0.25
    ledger.adversarial = (x + 0.5).expand(n, 1, 1, 1)
    ledger.refused[1] = True
    ledger.detector = detector
    ledger.spend(torch.arange(n), 3 * n, 2 * n)
    return SimpleNamespace(ledger=ledger, broken_by=["clean", None, *["pgd"] * (n - 2)])


def test_the_table_has_a_row_for_each_example():
    found = pq.read_table(io.BytesIO(leave.examples(judged(4)))).to_pydict()

    assert found == {
        "index": [100, 101, 102, 103],
        "label": [0, 1, 2, 0],
        "predicted": [2, 0, 0, 0],
        "margin": [0.0, 0.5, 1.0, 1.5],
        "distance": [None, None, 0.25, 0.25],
        "broken_by": ["clean", None, "pgd", "pgd"],
        "forward": [3] * 4,
        "backward": [2] * 4,
    }
    found = pq.read_table(io.BytesIO(leave.examples(judged(4, detector=True)))).to_pydict()
    assert found["refused"] == [False, True, False, False]


@pytest.mark.parametrize(("n", "kept"), [(2, 0), (3, 1), (66, 64), (67, 64)])
def test_the_first_64_broken_examples_are_kept_with_what_broke_them(n: int, kept: int):
    found = load(leave.adversarial(judged(n)))

    assert found["index"].tolist() == list(range(102, 102 + kept))
    assert torch.equal(found["images"], found["clean"] + 0.5)
    assert torch.equal(found["clean"].flatten(), torch.arange(2, 2 + kept) / n)
