"""One NumPy archive of four arrays: x_train, y_train, x_test and y_test."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
from numpy.typing import NDArray

from advbench.data.base import Arrays, DataSet, Missing, Source, checked
from advbench.spec import BadInput

KEYS = ("x_train", "y_train", "x_test", "y_test")


class Npz(Source):
    """Images (N, H, W), (N, C, H, W) or (N, H, W, C) of 1 or 3 channels, uint8 or floats in [0, 1]; labels (N,)."""

    name = "npz"
    about = "a .npz file under the data root with x_train, y_train, x_test, y_test"
    located = True

    def files(self, root: Path) -> list[Path]:
        if not (path := self.place(root)).is_file():
            raise Missing.at(path, f"write it with numpy.savez: {', '.join(KEYS)}")
        return [path]

    def load(self, root: Path) -> DataSet:
        [path] = self.files(root)
        found = arrays(path, KEYS)
        return checked(_split(path, found, "train"), _split(path, found, "test"))


def _split(path: Path, found: dict[str, NDArray[Any]], split: str) -> Arrays:
    images_name, labels_name = f"{path}: x_{split}", f"{path}: y_{split}"
    return Arrays(channels_first(found[f"x_{split}"], images_name), found[f"y_{split}"], images_name, labels_name)


def arrays(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an archive that `keys` name; nothing is ever unpickled. Raises BadInput."""
    reading = ""
    found: dict[str, NDArray[Any]] = {}
    try:
        # Asked first, because NumPy takes any file that is no archive for a pickle and advises to unpickle it.
        if not is_zipfile(path):
            raise BadInput(f"{path}: not a whole .npz archive: truncated, or another kind of file")
        with np.load(path, allow_pickle=False) as archive:
            if absent := [key for key in keys if key not in archive.files]:
                raise BadInput(f"{path}: no array {absent[0]}; it holds {', '.join(archive.files) or 'nothing'}")
            for key in keys:
                reading = f" {key}:"
                found[key] = np.asarray(archive[key])
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, BadZipFile, zlib.error) as error:
        # A damaged archive raises any of these, depending on where the damage is.
        reason = (str(error) or "damaged").splitlines()[0]
        raise BadInput(f"{path}:{reading} cannot be read: {reason}") from None
    return found


def channels_first(images: NDArray[Any], name: str) -> NDArray[Any]:
    """(N, C, H, W) from any of the three layouts. Raises BadInput where the shape does not tell which it is."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        raise BadInput(f"{name}: shape {images.shape}; images should be (N, H, W), (N, C, H, W) or (N, H, W, C)")
    first, last = images.shape[1] in (1, 3), images.shape[3] in (1, 3)
    if first and last:
        raise BadInput(f"{name}: shape {images.shape} could be (N, C, H, W) or (N, H, W, C); pad or crop the images")
    if not first and not last:
        raise BadInput(f"{name}: shape {images.shape}; neither axis 1 nor axis 3 is 1 or 3 channels")
    return images if first else np.moveaxis(images, 3, 1)
