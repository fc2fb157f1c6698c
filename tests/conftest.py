"""What every test may use: one thread, and the real data where they lie."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
import torch

REPO = Path(__file__).resolve().parents[1]

# Sums, and so golden values, depend on the number of threads.
torch.set_num_threads(1)


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
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds MNIST in torchvision's layout: $ADVBENCH_DATA where it does, else unpacked once."""
    named = os.environ.get("ADVBENCH_DATA")
    if named and (Path(named) / "MNIST" / "raw").is_dir():
        return Path(named)
    root = tmp_path_factory.mktemp("mnist")
    with tarfile.open(_shared("mnist-raw.tar.xz")) as archive:
        archive.extractall(root, filter="data")
    return root
