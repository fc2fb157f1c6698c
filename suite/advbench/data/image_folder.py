"""A folder of images: train/<class>/* and test/<class>/*, the classes in alphabetical order."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from advbench.data.base import Arrays, DataSet, Missing, Source, checked
from advbench.spec import BadInput

GREY = ("1", "L")
DEEP = ("I", "F")
"""Pillow's modes of more than 8 bits a pixel begin with these; its conversion would clip them without a word."""
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)
"""What Pillow's decoders raise on damaged files; SyntaxError is their word for a broken PNG."""


class ImageFolder(Source):
    """Images of one size in torchvision's ImageFolder layout; grey if the first one is, RGB otherwise."""

    name = "image-folder"
    about = "a folder under the data root with train/<class>/* and test/<class>/*, all images of one size"
    located = True

    def files(self, root: Path) -> list[Path]:
        folder = self.place(root)
        for split in ("train", "test"):
            if not (folder / split).is_dir():
                raise Missing.at(folder / split, "put images there, in a folder for each class")
        # Links are followed, as torchvision follows them: what it reads must be what is watched for changes.
        # A folder's own time tells of a file that came or went.
        walks = (os.walk(folder / split, followlinks=True) for split in ("train", "test"))
        return sorted(Path(place, name) for walk in walks for place, _, names in walk for name in ("", *names))

    def load(self, root: Path) -> DataSet:
        self.files(root)
        folder = self.place(root)
        (train, classes), (test, others) = _samples(folder / "train"), _samples(folder / "test")
        if classes != others:
            odd = sorted(set(classes) ^ set(others))[0]
            raise BadInput(f"{folder}: class folder '{odd}' is in only one of train and test")
        first = _open(train[0][0])
        mode = "L" if first.mode in GREY else "RGB"
        return checked(
            _read(folder / "train", train, mode, first.size),
            _read(folder / "test", test, mode, first.size),
            classes=len(classes),
        )


def _samples(folder: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """(file, class number) of every image in class and file order, and the class names. Raises BadInput."""
    from torchvision import datasets

    try:
        # torchvision carries no types.
        found: Any = datasets.ImageFolder(str(folder))
    except FileNotFoundError as error:
        # No class folder at all, or one without an image; torchvision's text says which.
        raise BadInput(f"{folder}: {str(error).splitlines()[0]}") from None
    return found.samples, found.classes


def _read(folder: Path, samples: list[tuple[str, int]], mode: str, size: tuple[int, int]) -> Arrays:
    width, height = size
    images = np.empty((len(samples), height, width, len(mode)), np.uint8)
    for i, (file, _) in enumerate(samples):
        image = _open(file)
        if image.size != size:
            raise BadInput(f"{file}: {image.width}x{image.height} pixels, but the first image has {width}x{height}")
        if mode == "L" and image.mode not in GREY:
            raise BadInput(f"{file}: a colour image, but the first one is grey")
        images[i] = np.asarray(image.convert(mode)).reshape(height, width, len(mode))
    labels: NDArray[np.int64] = np.array([label for _, label in samples], np.int64)
    return Arrays(images.transpose(0, 3, 1, 2), labels, str(folder), str(folder))


def _open(file: str) -> Image.Image:
    """The decoded image. Raises BadInput that names the file."""
    try:
        with Image.open(file) as image:
            image.load()
    except DAMAGED as error:
        raise BadInput(f"{file}: not a readable image: {error}") from None
    if image.mode.startswith(DEEP):
        raise BadInput(f"{file}: more than 8 bits a channel (mode {image.mode}); save it with 8")
    return image
