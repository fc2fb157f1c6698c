"""Real images in a folder, and a small MNIST for the tests that need no real one."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray


@pytest.fixture(scope="session")
def cifar_root(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the first 50 images of each class of cifar10-jpeg/{train,test}."""
    archive = shared_data("cifar10-jpeg.tar.xz")
    root = tmp_path_factory.mktemp("cifar")

    with tarfile.open(archive) as tar:
        early = (m for m in tar if (number := Path(m.name).stem).isdigit() and int(number) < 50)
        tar.extractall(root, members=early, filter="data")
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
