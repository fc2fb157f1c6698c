"""Base of the sets that are folders of image files: listed, decoded once, and kept as a memory map.

Decoding takes minutes to hours, so the pixels are kept in `decoded/` beside the images: one .npy file a split, made
again when the name, size or time of any image has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from advbench.data.base import Arrays, DataSet, Missing, Source, checked
from advbench.data.decode import mode_of, opened, pixels
from advbench.files import sweep_temporary
from advbench.spec import BadInput

Samples = list[tuple[str, int]]
"""(file, class number) of each image of a split, in its official order."""
CHUNK = 256
"""Images decoded between two writes; of ImageNet's size, 38 MB."""


class Folders(Source):
    """A subclass sets `splits`, `how`, perhaps `home` and `mode`, and may override `listed`."""

    splits: ClassVar[tuple[str, str]] = ("train", "test")
    """The folders of the two splits."""
    how: ClassVar[str]
    """How a person gets the images, for who has none."""
    home: ClassVar[str] = ""
    """The folder's name under the data root, where the task does not say it."""
    mode: ClassVar[str | None] = None
    """Pillow's L or RGB; None: grey if the first training image is."""

    def place(self, root: Path) -> Path:
        return root / (self.path or self.home)

    def files(self, root: Path) -> list[Path]:
        folder = self.place(root)
        for split in self.splits:
            if not (folder / split).is_dir():
                raise Missing.at(folder / split, self.how)
        # Links are followed, as torchvision follows them: what it reads must be what is watched for changes.
        # A folder's own time tells of a file that came or went.
        walks = (os.walk(folder / split, followlinks=True) for split in self.splits)
        return sorted(Path(place, name) for walk in walks for place, _, names in walk for name in ("", *names))

    def load(self, root: Path) -> DataSet:
        self.files(root)
        folder = self.place(root)
        train, test, classes = self.listed(folder)
        first = opened(train[0][0])
        mode = self.mode or mode_of(first)
        width, height = (self.size, self.size) if self.size else first.size
        read = partial(pixels, mode=mode, width=width, height=height, crop=self.size is not None)
        shape = (len(mode), height, width)
        return checked(
            *(
                _arrays(folder / split, samples, read, shape, str(self.size or "whole"))
                for split, samples in zip(self.splits, (train, test), strict=True)
            ),
            classes=classes,
        )

    def listed(self, folder: Path) -> tuple[Samples, Samples, int]:
        """The training images, the test images and the number of classes. Raises BadInput."""
        train, test = self.splits
        (training, classes), (tested, others) = samples(folder / train), samples(folder / test)
        if classes != others:
            odd = sorted(set(classes) ^ set(others))[0]
            raise BadInput(f"{folder}: class folder '{odd}' is in only one of {train} and {test}")
        return training, tested, len(classes)


def samples(folder: Path) -> tuple[Samples, list[str]]:
    """Every image in class and file order, and the class names in alphabetical order. Raises BadInput."""
    from torchvision import datasets

    try:
        # torchvision carries no types.
        found: Any = datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        # No class folder at all, or one without an image; torchvision's text says which.
        raise BadInput(f"{folder}: {str(error).splitlines()[0]}") from None
    return found.samples, found.classes


def _arrays(
    split: Path, found: Samples, read: Callable[[str], NDArray[np.uint8]], shape: tuple[int, int, int], how: str
) -> Arrays:
    """`how` names what is made of the images; a split may be kept in several ways."""
    files = [file for file, _ in found]
    kept = split.parent / "decoded" / f"{split.name}-{how}-{_key(split, files, shape)}.npy"
    images = _mapped(kept)
    if images is None:
        try:
            _decode(kept, files, read, shape)
        except OSError as error:
            advice = "give it room and write access, or link the images into a folder that has both"
            raise BadInput(f"{kept.parent}: decoded images cannot be kept there: {error.strerror}; {advice}") from error
        images = _mapped(kept)
        assert images is not None
        _forget(kept, f"{split.name}-{how}")
    labels: NDArray[np.int64] = np.array([label for _, label in found], np.int64)
    return Arrays(images, labels, str(split), str(split))


def _key(split: Path, files: list[str], shape: tuple[int, int, int]) -> str:
    """Changes when an image comes, goes, moves or is written again, and with the shape that all are to have."""
    digest = hashlib.sha256(f"{shape}".encode())
    for file in files:
        stat = Path(file).stat()
        digest.update(os.fsencode(file.removeprefix(str(split))) + f"\0{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _mapped(kept: Path) -> NDArray[np.uint8] | None:
    try:
        return np.load(kept, mmap_mode="r")
    except (OSError, ValueError):
        return None  # absent, or shorter than its header says


def _decode(kept: Path, files: list[str], read: Callable[[str], NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    """Write the pixels of `files` to `kept` in one step: another process sees a whole file or none."""
    kept.parent.mkdir(exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}.tmp")
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)}
    try:
        # Threads are enough: Pillow lets go of the interpreter while it decodes and resizes.
        with ThreadPoolExecutor(os.cpu_count()) as pool, temporary.open("wb") as file:
            npy.write_array_header_1_0(file, header)
            for first in range(0, len(files), CHUNK):
                for image in pool.map(read, files[first : first + CHUNK]):
                    file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(kept)
    finally:
        temporary.unlink(missing_ok=True)


def _forget(kept: Path, prefix: str) -> None:
    """Remove what was made of these images before they changed; another process that maps it keeps its pages."""
    for path in kept.parent.glob(f"{prefix}-*.npy"):
        if path != kept:
            path.unlink(missing_ok=True)
    sweep_temporary(kept.parent.glob(f".{prefix}-*.tmp"))
