"""CIFAR-10: 50,000 + 10,000 colour images of 32 by 32 pixels in ten classes (Krizhevsky 2009).

The official files are Python pickles, and reading a pickle can run any code: each file's MD5 must be the publisher's
before torchvision opens it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from advbench.data.base import Arrays, DataSet, checked
from advbench.data.published import Published


class Cifar10(Published):
    """The official split and order of classes, from `cifar-10-batches-py` under the data root."""

    name = "cifar10"
    about = "50,000 + 10,000 colour 32x32 images, 10 classes; cifar-10-batches-py under the data root, or --download"

    classes: ClassVar[int] = 10
    torchvision: ClassVar[str] = "CIFAR10"
    """torchvision's class, which knows address, files and digests."""

    def _kind(self) -> Any:
        from torchvision import datasets

        return getattr(datasets, self.torchvision)

    def published(self) -> Mapping[str, str | None]:
        kind = self._kind()
        listed = [*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])]
        return {f"{kind.base_folder}/{name}": md5 for name, md5 in listed}

    def get(self, root: str) -> None:
        self._kind()(root, download=True)

    def load(self, root: Path) -> DataSet:
        self.verify(root)
        return checked(self._split(root, train=True), self._split(root, train=False), classes=self.classes)

    def _split(self, root: Path, *, train: bool) -> Arrays:
        kind = self._kind()
        read = kind(str(root), train=train)
        name = f"{root / kind.base_folder}: {'train' if train else 'test'}"
        return Arrays(read.data.transpose(0, 3, 1, 2), np.array(read.targets, np.int64), name, name)
