from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from advbench.data.base import Missing
from advbench.data.fashion_mnist import FashionMnist
from advbench.data.mnist import SIZES, Mnist
from advbench.spec import BadInput


def test_the_real_one(mnist_root: Path) -> None:
    data = Mnist().load(mnist_root)
    assert data.train.images.shape == (60_000, 1, 28, 28)
    assert data.test.images.shape == (10_000, 1, 28, 28)
    assert (data.classes, data.peak) == (10, 255)
    assert data.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    # The mean and deviation that every MNIST tutorial normalises with.
    assert data.train.images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert data.train.images.std() / 255 == pytest.approx(0.3081, abs=5e-5)
    # The bytes of the official file, so that no image is moved or turned.
    header = bytes.fromhex("00000803" + "0000ea60" + "0000001c" * 2)
    digest = hashlib.md5(header + data.train.images.tobytes(), usedforsecurity=False).hexdigest()
    assert digest == "6bbc9ace898e44ae57da46a324031adb"


def test_official_sizes_are_the_real_ones(mnist_root: Path) -> None:
    assert {path.name: path.stat().st_size for path in Mnist().files(mnist_root)} == SIZES


def test_a_small_one_reads_as_written(tiny_mnist: Path) -> None:
    data = Mnist().load(tiny_mnist)
    raw = tiny_mnist / "MNIST" / "raw"
    assert data.shape == (1, 5, 4)
    assert data.train.images.tobytes() == (raw / "train-images-idx3-ubyte").read_bytes()[16:]
    assert data.test.images.tobytes() == (raw / "t10k-images-idx3-ubyte").read_bytes()[16:]
    np.testing.assert_array_equal(data.train.labels, np.arange(20) % 10)
    np.testing.assert_array_equal(data.test.labels, np.arange(10))


def test_torchvisions_old_copies_are_not_read(tiny_mnist: Path) -> None:
    before = Mnist().load(tiny_mnist).sha256
    processed = tiny_mnist / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        (processed / name).write_bytes(b"not even a tensor")
    assert Mnist().load(tiny_mnist).sha256 == before


@pytest.mark.parametrize("name", SIZES)
def test_a_missing_file_says_how_to_get_it(tiny_mnist: Path, name: str) -> None:
    path = tiny_mnist / "MNIST" / "raw" / name
    path.unlink()
    with pytest.raises(Missing) as caught:
        Mnist().load(tiny_mnist)
    line = str(caught.value)
    assert line.startswith(f"{path} is not there; advbench run --download gets it")
    assert "--data-root" in line
    assert "ADVBENCH_DATA" in line
    assert "\n" not in line


@pytest.mark.parametrize("name", SIZES)
def test_a_file_that_nobody_may_read_is_named(tiny_mnist: Path, name: str, forbid: Callable[[Path], None]) -> None:
    path = tiny_mnist / "MNIST" / "raw" / name
    forbid(path)
    for read in (Mnist().load, Mnist().verify):
        with pytest.raises(BadInput) as caught:
            read(tiny_mnist)
        assert caught.value.lines == (f"{path}: cannot be read: Permission denied",)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_length_names_the_file_and_the_bytes(tiny_mnist: Path, name: str, change: int) -> None:
    path = tiny_mnist / "MNIST" / "raw" / name
    whole = path.read_bytes()
    path.write_bytes((whole + b"\0")[: len(whole) + change])
    line = f"{path}: {len(whole) + change} bytes, but its header says {len(whole)} (the official file has"
    with pytest.raises(BadInput, match=re.escape(line)) as caught:
        Mnist().load(tiny_mnist)
    assert f"the official file has {len(whole)}); delete it and get it again" in str(caught.value)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"<html>not found</html>", bytes((0, 0, 8, 2)) + bytes(20)])
def test_what_is_no_idx_file_is_named(tiny_mnist: Path, content: bytes) -> None:
    path = tiny_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=re.escape(f"{path}: not an idx file of 3-d bytes ({len(content)} bytes; ")):
        Mnist().load(tiny_mnist)


def test_a_whole_file_of_another_size_is_refused(tiny_mnist: Path, write_idx) -> None:
    path = tiny_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    write_idx(path, np.zeros(11, np.uint8))
    with pytest.raises(BadInput, match=re.escape(f"{path}: 19 bytes (the official file has 18); delete it")):
        Mnist().load(tiny_mnist)


@pytest.mark.parametrize("name", SIZES)
def test_a_changed_byte_is_refused_with_both_digests(tiny_mnist: Path, md5, name: str) -> None:
    path = tiny_mnist / "MNIST" / "raw" / name
    before, content = md5(path), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        Mnist().load(tiny_mnist)
    [line] = caught.value.lines
    assert line.startswith(f"{path}: its MD5 is {md5(path)}, but the published file's is {before}; delete it and get")


def test_other_images_of_the_official_size_are_refused(tmp_path: Path, write_idx) -> None:
    raw = tmp_path / "MNIST" / "raw"
    for split, n in (("train", 60_000), ("t10k", 10_000)):
        write_idx(raw / f"{split}-images-idx3-ubyte", np.zeros((n, 28, 28), np.uint8))
        write_idx(raw / f"{split}-labels-idx1-ubyte", np.zeros(n, np.uint8))
    with pytest.raises(BadInput, match="published file's is 6bbc9ace898e44ae57da46a324031adb"):
        Mnist().load(tmp_path)


def test_a_label_above_nine_is_refused(tiny_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes((10,)))
    monkeypatch.setattr(Mnist, "md5", {})
    with pytest.raises(BadInput, match=re.escape(f"{path}: a label of 10, but there are 10 classes: 0 to 9")):
        Mnist().load(tiny_mnist)


def test_a_header_that_is_cut_off_is_named(tiny_mnist: Path) -> None:
    path = tiny_mnist / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:15])
    with pytest.raises(BadInput, match=re.escape(f"{path}: not an idx file of 3-d bytes (15 bytes; ")):
        Mnist().load(tiny_mnist)


def test_every_digit_must_be_there(tiny_mnist: Path, write_idx, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, n in (("train", 20), ("t10k", 10)):
        write_idx(tiny_mnist / "MNIST" / "raw" / f"{split}-labels-idx1-ubyte", (np.arange(n) % 9).astype(np.uint8))
    monkeypatch.setattr(Mnist, "md5", {})
    with pytest.raises(BadInput, match="train-labels-idx1-ubyte: no example of class 9"):
        Mnist().load(tiny_mnist)


@pytest.mark.parametrize("kind", [Mnist, FashionMnist])
def test_torchvision_is_asked_for_the_download(kind: type[Mnist], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, bool]]] = []
    monkeypatch.setattr(datasets, kind.torchvision, lambda root, **how: asked.append((root, how)))
    kind().get("here")
    assert asked == [("here", {"download": True})]
