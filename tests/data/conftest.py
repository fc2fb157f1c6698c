"""Real data for the tests that need it, and writers of small data sets for those that do not."""

from __future__ import annotations

import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

STANDINS = Path(__file__).parents[3] / "shared" / "data"
"""Archives that stand in for downloads, beside a checkout that has them."""


@pytest.fixture(scope="session")
def mnist_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the real MNIST: ADVBENCH_DATA's, or the unpacked stand-in."""
    if given := os.environ.get("ADVBENCH_DATA"):
        if not (Path(given) / "MNIST" / "raw").is_dir():
            pytest.skip("ADVBENCH_DATA holds no MNIST/raw")
        return Path(given)
    archive = STANDINS / "mnist-raw.tar.xz"
    if not archive.is_file():
        pytest.skip("no real MNIST: set ADVBENCH_DATA to a data root that has MNIST/raw")
    root = tmp_path_factory.mktemp("data")
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    return root


@pytest.fixture(scope="session")
def cifar_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with cifar10-jpeg/{train,test}/<class>/: ADVBENCH_DATA's, or the unpacked stand-in."""
    if (given := os.environ.get("ADVBENCH_DATA")) and (Path(given) / "cifar10-jpeg").is_dir():
        return Path(given)
    archive = STANDINS / "cifar10-jpeg.tar.xz"
    if not archive.is_file():
        pytest.skip("no CIFAR-10 images: set ADVBENCH_DATA to a data root that has cifar10-jpeg/{train,test}/<class>")
    root = tmp_path_factory.mktemp("data")
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter="data")
    return root


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """`array` in MNIST's own format."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def tiny_mnist(tmp_path: Path) -> Path:
    """A data root with an MNIST of 20 + 10 random images of 5 by 4 pixels; image i shows class i % 10."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("t10k", 10)):
        raw = tmp_path / "MNIST" / "raw"
        write_idx(raw / f"{split}-images-idx3-ubyte", rng.integers(0, 256, (n, 5, 4), dtype=np.uint8))
        write_idx(raw / f"{split}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    return tmp_path
