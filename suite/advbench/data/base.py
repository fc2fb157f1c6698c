"""What a data source is, the values it deals in, and every check that data must pass before a job sees it.

A source only reads; `checked` alone decides that what was read is a data set, so a rule holds for all sources.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from advbench.data.stream import ahead
from advbench.spec import BadInput, Part

DATA_ROOT = "--data-root or ADVBENCH_DATA"


class Missing(Exception):
    """The data is not on this machine; the message says how to get it. The job is skipped, not failed."""

    def __init__(self, what: str, where: str = "") -> None:
        """`where`: what says where data sets lie, which a list of many findings says once."""
        super().__init__(f"{what} ({where})" if where else what)
        self.what = what

    @classmethod
    def at(cls, place: Path, how: str) -> Missing:
        """Nothing at `place` under the data root; `how` says how to get it."""
        return cls(f"{place} is not there; {how}", f"{DATA_ROOT} sets the data root")


@contextmanager
def reading(path: Path) -> Generator[None]:
    """Inside, `path` is read. Raises BadInput where the machine does not let it."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Split:
    """One official split: images (N, C, H, W), uint8 or float32 in [0, 1], and labels (N,) int64.

    Images of folders are a read-only `np.memmap`, whose pages are read as they are used.
    """

    images: NDArray[np.uint8] | NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class DataSet:
    """A whole data set as it was read; `peak` is the integer that means white."""

    train: Split
    test: Split
    classes: int
    peak: int = 255
    pool: NDArray[np.uint8] | NDArray[np.float32] | None = None
    """Unlabelled images from another file, where the task names one."""

    @property
    def sha256(self) -> str:
        """Digest of every byte that a job can see: images and labels of both splits, and the pool."""
        digest = hashlib.sha256(f"{self.classes}/{self.peak}".encode())
        arrays = [array for split in (self.train, self.test) for array in (split.images, split.labels)]
        for array in arrays if self.pool is None else [*arrays, self.pool]:
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        c, h, w = self.train.images.shape[1:]
        return c, h, w


@dataclass(frozen=True)
class Examples:
    """A subset: stored images, labels (N,), and each one's position in its official split, for one device.

    Resident: `stored` lies on the device, row for row. Streamed: `stored` is the whole split in host memory or in its
    memory map, and row i of the subset is `stored[places[i]]`; images travel when they are asked for.
    """

    stored: Tensor
    labels: Tensor
    index: Tensor
    peak: int
    places: Tensor | None = None
    """Set where the images are streamed; in host memory."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where the images and labels that it gives are."""
        return self.labels.device

    def some(self, rows: Tensor | slice) -> Examples:
        """Those of `rows`, in that order."""
        labels, index = self.labels[rows], self.index[rows]
        if self.places is None:
            return replace(self, stored=self.stored[rows], labels=labels, index=index)
        # Streamed images stay where they are; only the places among them, in host memory, are fewer.
        return replace(
            self, places=self.places[rows.cpu() if isinstance(rows, Tensor) else rows], labels=labels, index=index
        )

    def pixels(self, rows: Tensor | slice) -> Tensor:
        """The rows' images as float32 in [0, 1]."""
        return self.scaled(self.images(rows))

    def images(self, rows: Tensor | slice) -> Tensor:
        """The rows' stored images on the device."""
        if self.places is None:
            return self.stored[rows]
        rows = rows.cpu() if isinstance(rows, Tensor) else rows
        return self.stored[self.places[rows]].to(self.device)

    def batches(self, chosen: Sequence[Tensor]) -> Generator[tuple[Tensor, Tensor]]:
        """Stored images and labels, on the device, of each of the `chosen` rows (B,); streamed ones are read ahead.

        Close it where it may be left early, and the reading stops.
        """
        if self.places is None:
            for rows in chosen:
                rows = rows.to(self.device)
                yield self.stored[rows], self.labels[rows]
            return
        with closing(ahead(self._gathered([self.places[rows.cpu()] for rows in chosen]))) as ready:
            for images, rows in zip(ready, chosen, strict=True):
                yield images.to(self.device, non_blocking=True), self.labels[rows.to(self.device)]

    def _gathered(self, chosen: Sequence[Tensor]) -> Iterator[Tensor]:
        """Batches in host memory, locked there for an accelerator, which copies only such memory while it works."""
        pinned = self.device.type == "cuda"
        for some in chosen:
            batch = torch.empty((len(some), *self.stored.shape[1:]), dtype=self.stored.dtype, pin_memory=pinned)
            yield torch.index_select(self.stored, 0, some, out=batch)

    def scaled(self, stored: Tensor) -> Tensor:
        """Stored images (augmented ones, say) as float32 in [0, 1]."""
        # Cloned because a slice is a view: a caller that wrote into it would change the data set.
        return stored.float().div_(self.peak) if stored.dtype == torch.uint8 else stored.clone()


@dataclass(frozen=True)
class Arrays:
    """One split as it was read, nothing checked yet, and what a person calls its two arrays."""

    images: NDArray[Any]
    labels: NDArray[Any]
    images_name: str
    labels_name: str


def checked(train: Arrays, test: Arrays, *, classes: int | None = None, peak: int = 255) -> DataSet:
    """The data set that two splits make: images (N, C, H, W), labels 0 to classes - 1 with every class in training.

    `classes` defaults to the largest training label + 1. Raises BadInput with one line that names the array.
    """
    seen = stored(train.images, train.images_name, peak), stored(test.images, test.images_name, peak)
    if (ours := seen[0].shape[1:]) != (theirs := seen[1].shape[1:]):
        raise BadInput(f"{test.images_name}: images of shape {theirs}, but {train.images_name} holds {ours}")
    found = _labels(train)
    if classes is None:
        classes = int(found.max()) + 1
    present = np.unique(found)
    if classes < 2:
        raise BadInput(f"{train.labels_name}: only one class; a classifier needs two")
    # Most often labels that count from 1; by comparison, because a stray label of 10**9 must not make a list so long.
    absent = next((c for c, label in enumerate(present) if c != label), len(present))
    if absent < classes:
        raise BadInput(f"{train.labels_name}: no example of class {absent}; labels should be 0, 1, 2, ...")
    labels = _in_range(found, classes, train.labels_name), _in_range(_labels(test), classes, test.labels_name)
    return DataSet(Split(seen[0], labels[0]), Split(seen[1], labels[1]), classes, peak)


def stored(images: NDArray[Any], name: str, peak: int) -> NDArray[np.uint8] | NDArray[np.float32]:
    """What a person calls `name`, as stored images (N, C, H, W). Raises BadInput."""
    if images.ndim != 4 or 0 in images.shape:
        raise BadInput(f"{name}: shape {images.shape}; images should be (N, C, H, W) and none of these 0")
    if images.dtype == np.uint8:
        brightest = int(images.max())
        if brightest > peak:
            raise BadInput(f"{name}: a pixel of {brightest}, above the white of {peak}")
        if brightest <= 1 < peak:
            raise BadInput(f"{name}: no pixel above {brightest} where {peak} is white; store 0-to-1 images as floats")
        return np.asanyarray(images, order="C")  # a memory map stays one
    if not np.issubdtype(images.dtype, np.floating):
        raise BadInput(f"{name}: {images.dtype}; pixels should be uint8, or floats in [0, 1]")
    pixels = np.ascontiguousarray(images, dtype=np.float32)
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadInput(f"{name}: holds NaN or infinite pixels")
    if low < 0 or high > 1:
        advice = "undo the normalisation: it belongs in the model" if low < 0 else "divide by 255"
        raise BadInput(f"{name}: values from {low:g} to {high:g}; floats should lie in [0, 1]: {advice}")
    return pixels


def _labels(split: Arrays) -> NDArray[Any]:
    labels, name = split.labels, split.labels_name
    if labels.ndim != 1:
        raise BadInput(f"{name}: shape {labels.shape}; labels should be (N,)")
    if not np.issubdtype(labels.dtype, np.integer):
        raise BadInput(f"{name}: {labels.dtype}; labels should be integers")
    if len(labels) != len(split.images):
        raise BadInput(f"{name}: {len(labels):,} labels, but {len(split.images):,} images in {split.images_name}")
    if (least := int(labels.min())) < 0:
        raise BadInput(f"{name}: a label of {least}; labels should be 0, 1, 2, ...")
    return labels


def _in_range(labels: NDArray[Any], classes: int, name: str) -> NDArray[np.int64]:
    if (most := int(labels.max())) >= classes:
        raise BadInput(f"{name}: a label of {most}, but there are {classes} classes: 0 to {classes - 1}")
    return labels.astype(np.int64)


class Source(Part):
    """Base of all sources. A subclass sets `name` and `about` and writes `files` and `load`."""

    about: ClassVar[str]
    """One line for `advbench list datasets`."""
    located: ClassVar[bool] = False
    """Whether the task must say where: the `path` under the data root."""
    sized: ClassVar[bool] = False
    """Whether the task may say to which `size` images are cropped."""

    path: str | None = None
    size: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if self.located and not self.path:
            raise ValueError(f'"{self.name}" needs a path, relative to the data root')
        if self.path and not self.located:
            raise ValueError(f'"{self.name}" takes no path')
        if self.size and not self.sized:
            raise ValueError(f'"{self.name}" takes no size')
        return self

    def place(self, root: Path) -> Path:
        """Where `path` is on this machine."""
        return root / (self.path or "")

    def files(self, root: Path) -> list[Path]:
        """The files whose size and time tell that the data has not changed. Raises Missing."""
        raise NotImplementedError

    def load(self, root: Path) -> DataSet:
        """Read everything, checked: labels in range, sizes that agree. Raises Missing or BadInput."""
        raise NotImplementedError
