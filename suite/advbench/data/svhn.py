"""SVHN: 73,257 + 26,032 house-number digits, cropped to 32 by 32 colour pixels (Netzer et al. 2011).

The `extra` split is not read; as an unlabelled pool it can be given as a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from advbench.data.base import Arrays, DataSet, checked
from advbench.data.published import Published


def _kind() -> Any:
    from torchvision import datasets

    return datasets.SVHN


class Svhn(Published):
    """The official split, from `train_32x32.mat` and `test_32x32.mat`; digit 0, there label 10, is class 0."""

    name = "svhn"
    about = "73,257 + 26,032 colour 32x32 digits; train_32x32.mat and test_32x32.mat under the data root, or --download"

    def published(self) -> Mapping[str, str | None]:
        listed = _kind().split_list
        return {file: md5 for _, file, md5 in (listed["train"], listed["test"])}

    def get(self, root: str) -> None:
        for split in ("train", "test"):
            _kind()(root, split=split, download=True)

    def load(self, root: Path) -> DataSet:
        self.verify(root)
        train, test = (self._split(root, split) for split in ("train", "test"))
        return checked(train, test, classes=10)

    def _split(self, root: Path, split: str) -> Arrays:
        read = _kind()(str(root), split=split)
        name = str(root / read.filename)
        return Arrays(read.data, read.labels, name, name)
