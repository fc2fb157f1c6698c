"""CIFAR-10 and CIFAR-100, which share a format and so a reader."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets
from torchvision.datasets import CIFAR10, CIFAR100

from advbench.data.base import Missing
from advbench.data.cifar10 import Cifar10
from advbench.data.cifar100 import Cifar100
from advbench.data.published import Published
from advbench.spec import BadInput

SETS = [
    (Cifar10, "cifar-10-batches-py", [f"data_batch_{i}" for i in range(1, 6)], "test_batch", "labels", 10),
    (Cifar100, "cifar-100-python", ["train"], "test", "fine_labels", 100),
]


@pytest.mark.parametrize(("kind", "folder", "train", "test", "key", "classes"), SETS)
def test_bytes_and_labels_are_those_of_the_files(
    tiny_cifar: Path, kind: type[Published], folder: str, train: list[str], test: str, key: str, classes: int
) -> None:
    data = kind().load(tiny_cifar)
    assert (data.shape, data.classes, data.peak) == ((3, 32, 32), classes, 255)
    for split, names in ((data.train, train), (data.test, [test])):
        batches = [pickle.loads((tiny_cifar / folder / name).read_bytes()) for name in names]  # noqa: S301  our own
        # A row is 1,024 red bytes, then the green ones, then the blue ones.
        assert split.images.tobytes() == b"".join(batch["data"].tobytes() for batch in batches)
        np.testing.assert_array_equal(split.labels, [label for batch in batches for label in batch[key]])


@pytest.mark.parametrize(("kind", "folder", "train", "test"), [entry[:4] for entry in SETS])
def test_the_wrong_digest_is_refused_before_anything_is_unpickled(
    tiny_cifar: Path, md5, kind: type[Published], folder: str, train: list[str], test: str
) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tiny_cifar / "executed",)

    for name in (train[-1], test):
        path = tiny_cifar / folder / name
        before = path.read_bytes(), md5(path)
        path.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(BadInput) as caught:
            kind().load(tiny_cifar)
        [line] = caught.value.lines
        assert line.startswith(f"{path}: its MD5 is {md5(path)}, but the published file's is {before[1]}; delete it")
        assert not (tiny_cifar / "executed").exists()
        path.write_bytes(before[0])
    kind().load(tiny_cifar)


@pytest.mark.parametrize(
    ("kind", "official", "file", "digest"),
    [
        (Cifar10, CIFAR10, "data_batch_1", "c99cafc152244af753f735de768cd75f"),
        (Cifar100, CIFAR100, "train", "16019d7e3df5f24257cddd939b257f8d"),
    ],
)
def test_what_is_not_the_published_file_is_refused(tmp_path: Path, kind, official, file: str, digest: str) -> None:
    for name in kind().published():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    line = f"{tmp_path / official.base_folder / file}: its MD5 is d41d8cd98f00b204e9800998ecf8427e, but the published "
    with pytest.raises(BadInput, match=re.escape(f"{line}file's is {digest}; ")):
        kind().load(tmp_path)


def test_an_absent_file_is_missing_with_the_way_to_get_it(tiny_cifar: Path) -> None:
    path = tiny_cifar / "cifar-10-batches-py" / "data_batch_3"
    path.unlink()
    with pytest.raises(Missing, match=re.escape(f"{path} is not there; advbench run --download gets it")):
        Cifar10().load(tiny_cifar)


@pytest.mark.parametrize(("kind", "classes"), [(Cifar10, 10), (Cifar100, 100)])
def test_every_class_must_be_there(
    tiny_cifar: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Cifar10], classes: int
) -> None:
    official = getattr(datasets, kind.torchvision)

    class Poorer(official):  # type: ignore[misc, valid-type]
        def __init__(self, root: str, *, train: bool) -> None:
            super().__init__(root, train=train)
            self.targets = [label % (classes - 1) for label in self.targets]

    monkeypatch.setattr(datasets, kind.torchvision, Poorer)
    with pytest.raises(BadInput, match=f"train: no example of class {classes - 1}; "):
        kind().load(tiny_cifar)


@pytest.mark.parametrize("kind", [Cifar10, Cifar100])
def test_torchvision_is_asked_for_the_download(kind: type[Cifar10], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, bool]]] = []
    monkeypatch.setattr(datasets, kind.torchvision, lambda root, **how: asked.append((root, how)))
    kind().get("here")
    assert asked == [("here", {"download": True})]
