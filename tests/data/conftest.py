"""Real images in a folder, and a small MNIST for the tests that need no real one."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from advbench.data.mnist import Mnist


@pytest.fixture(scope="session")
def cifar_root(
    told_data: Path | None, shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A data root with the first 50 images of each class of cifar10-jpeg/{train,test}, from $ADVBENCH_DATA if there."""
    root = tmp_path_factory.mktemp("cifar")
    if told_data and (named := told_data / "cifar10-jpeg").is_dir():
        for path in named.glob("*/*/00[0-4]?.jpg"):
            copy = root / path.relative_to(named.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        return root
    archive = shared_data("cifar10-jpeg.tar.xz")
    with tarfile.open(archive) as tar:
        early = (m for m in tar if (number := Path(m.name).stem).isdigit() and int(number) < 50)
        tar.extractall(root, members=early, filter="data")
    return root


def _write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    """`array` in MNIST's own format."""
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + array.tobytes())


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture(scope="session")
def write_idx() -> Callable[[Path, NDArray[np.uint8]], None]:
    """A function: path, array -> that file in MNIST's own format."""
    return _write_idx


@pytest.fixture(scope="session")
def md5() -> Callable[[Path], str]:
    """A function: path -> the MD5 of its content."""
    return _md5


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """A function: file -> nobody may open it from here on, root neither."""
    opened = Path.open

    def forbidden(path: Path) -> None:
        def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
            if self == path:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
            return opened(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse)

    return forbidden


@pytest.fixture
def tiny_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with an MNIST of 20 + 10 random 5x4 images, official here; image i shows class i % 10."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    for split, n in (("train", 20), ("t10k", 10)):
        _write_idx(raw / f"{split}-images-idx3-ubyte", rng.integers(0, 256, (n, 5, 4), dtype=np.uint8))
        _write_idx(raw / f"{split}-labels-idx1-ubyte", (np.arange(n) % 10).astype(np.uint8))
    monkeypatch.setattr(Mnist, "sizes", {name: (raw / name).stat().st_size for name in Mnist.sizes})
    monkeypatch.setattr(Mnist, "md5", {name: _md5(raw / name) for name in Mnist.sizes})
    return tmp_path


def _batch(path: Path, rows: range, key: str, classes: int) -> list[str]:
    """A file of CIFAR's format, and torchvision's line about it. Image i is of class -i, its first byte is i."""
    images = np.random.default_rng(len(rows) + rows.start).integers(0, 256, (len(rows), 3072), dtype=np.uint8)
    images[:, 0] = rows
    content = {"batch_label": path.name, key: [-i % classes for i in rows], "data": images}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, 2))
    return [path.name, _md5(path)]


@pytest.fixture
def tiny_cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with a CIFAR-10 of 5 x 4 + 10 images and a CIFAR-100 of 200 + 100, official here."""
    from torchvision.datasets import CIFAR10, CIFAR100

    for kind, key, names, classes in (
        (CIFAR10, "labels", [f"data_batch_{i}" for i in range(1, 6)], 10),
        (CIFAR100, "fine_labels", ["train"], 100),
    ):
        folder, each = tmp_path / kind.base_folder, 2 * classes // len(names)
        train = [_batch(folder / name, range(i * each, (i + 1) * each), key, classes) for i, name in enumerate(names)]
        meta = folder / kind.meta["filename"]
        meta.write_bytes(pickle.dumps({kind.meta["key"]: [f"class {i}" for i in range(classes)]}, 2))
        monkeypatch.setattr(kind, "train_list", train)
        monkeypatch.setattr(kind, "test_list", [_batch(folder / kind.test_list[0][0], range(classes), key, classes)])
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": _md5(meta)})
    return tmp_path
