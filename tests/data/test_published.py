"""Downloads go through torchvision; only the network under it is replaced, by a folder of archives."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.error import URLError

import pytest
from torchvision.datasets import CIFAR10, MNIST, utils

from advbench.data.cifar10 import Cifar10
from advbench.data.mnist import Mnist
from advbench.data.published import Published
from advbench.spec import BadInput

Served = Callable[[str], Path]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder: torchvision finds in it whatever address it asks for."""
    folder = tmp_path / "served"
    folder.mkdir()

    def retrieve(url: str, file: str | Path, chunk_size: int = 0) -> None:
        source = folder / url.rpartition("/")[2]
        if not source.is_file():
            raise URLError("no route to host")
        shutil.copyfile(source, file)

    monkeypatch.setattr(utils, "_urlretrieve", retrieve)
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops: url)
    return folder


@pytest.fixture
def cifar(served: Path, tiny_cifar: Path, monkeypatch: pytest.MonkeyPatch, md5) -> Published:
    """The tiny CIFAR-10, on the network instead of on the disk."""
    archive = served / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tiny_cifar / CIFAR10.base_folder, CIFAR10.base_folder)
    monkeypatch.setattr(CIFAR10, "tgz_md5", md5(archive))
    shutil.rmtree(tiny_cifar / CIFAR10.base_folder)
    return Cifar10()


@pytest.fixture
def mnist(served: Path, tiny_mnist: Path, monkeypatch: pytest.MonkeyPatch, md5) -> Published:
    """The tiny MNIST, on the network instead of on the disk."""
    resources = []
    for name in Mnist.sizes:
        archive = served / f"{name}.gz"
        archive.write_bytes(gzip.compress((tiny_mnist / "MNIST" / "raw" / name).read_bytes()))
        resources.append((archive.name, md5(archive)))
    monkeypatch.setattr(MNIST, "resources", resources)
    shutil.rmtree(tiny_mnist / "MNIST")
    return Mnist()


@pytest.mark.parametrize("source", ["cifar", "mnist"])
def test_a_download_brings_the_files_and_nothing_else(source: str, tmp_path: Path, request) -> None:
    kind: Published = request.getfixturevalue(source)
    root = tmp_path / "new" / "root"
    kind.download(root)
    assert sorted(p for p in root.rglob("*") if p.is_file()) == sorted(kind.files(root))
    assert kind.load(root).classes == 10


def leaves(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


@pytest.mark.parametrize("source", ["cifar", "mnist"])
def test_no_network_is_one_line_and_leaves_nothing(source: str, served: Path, tmp_path: Path, request) -> None:
    kind: Published = request.getfixturevalue(source)
    sorted(served.iterdir())[-1].unlink()
    root = tmp_path / "root"
    with pytest.raises(BadInput) as caught:
        kind.download(root)
    [line] = caught.value.lines
    assert line.startswith(f"{kind.name}: the download to {root} failed: ")
    assert "\n" not in line
    assert list(root.iterdir()) == []


def test_another_archive_than_the_published_one_is_refused(cifar: Published, served: Path, tmp_path: Path) -> None:
    archive = served / CIFAR10.filename
    archive.write_bytes(archive.read_bytes()[:-5])
    with pytest.raises(BadInput, match=re.escape("cifar10: the download to ") + ".*File not found or corrupted"):
        cifar.download(tmp_path / "root")
    assert leaves(tmp_path / "root") == []


def test_a_root_that_cannot_be_made_is_one_line(cifar: Published, tmp_path: Path) -> None:
    (tmp_path / "root").write_bytes(b"a file")
    with pytest.raises(BadInput, match=r"cifar10: the download to .* failed: "):
        cifar.download(tmp_path / "root")


class Two(Published):
    """A file with a published digest and one without."""

    name = "two"
    about = "a test"

    def published(self) -> Mapping[str, str | None]:
        return {"a/one": hashlib.md5(b"one", usedforsecurity=False).hexdigest(), "a/other": None}

    def get(self, root: str) -> None:
        [place] = Path(root).parent.iterdir()  # beside the root's files, where moving them is a matter of names
        assert place == Path(root)
        assert place.name.startswith(".download-")
        (place / "a").mkdir()
        for name in ("one", "other"):
            (place / "a" / name).write_text(name, "utf-8")


def test_only_published_digests_are_compared(tmp_path: Path) -> None:
    Two().download(tmp_path)  # the folder may be there already
    Two().verify(tmp_path)
    (tmp_path / "a" / "other").write_bytes(b"another")
    Two().verify(tmp_path)
    (tmp_path / "a" / "one").write_bytes(b"another")
    with pytest.raises(BadInput, match=re.escape(f"{tmp_path / 'a' / 'one'}: its MD5 is ")):
        Two().verify(tmp_path)


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OSError("no route\nto the host"), "no route"), (TimeoutError(), "TimeoutError")],
)
def test_why_a_download_failed_is_one_line_whatever_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def fails(self: Published, root: str) -> None:
        raise error

    monkeypatch.setattr(Two, "get", fails)
    with pytest.raises(BadInput) as caught:
        Two().download(tmp_path)
    assert caught.value.lines == (f"two: the download to {tmp_path} failed: {reason}",)
