"""A pool of unlabelled images in a file of its own: generated ones, or photographs that nobody labelled.

Rebuffi et al. (2021, arXiv 2103.01946) and Wang et al. (2023, arXiv 2302.04638) publish such files for CIFAR-10.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from advbench.data.base import DataSet, Missing, stored
from advbench.data.npz import arrays, channels_first
from advbench.spec import BadInput

KEY = "image"
"""What published pools call their images."""


def file(root: Path, path: str) -> Path:
    """The pool's file. Raises Missing."""
    if not (place := root / path).is_file():
        raise Missing.at(place, f"write it with numpy.savez: {KEY}")
    return place


def pooled(dataset: DataSet, root: Path, path: str) -> DataSet:
    """`dataset` with the pool's images, of the same shape, beside it; labels in the file are not read.

    Images as in data/npz.py. Raises Missing or BadInput.
    """
    place = file(root, path)
    name = f"{place}: {KEY}"
    pool = stored(channels_first(arrays(place, (KEY,))[KEY], name), name, dataset.peak)
    if pool.shape[1:] != dataset.shape:
        raise BadInput(f"{name}: images of shape {pool.shape[1:]}, but the data set's are {dataset.shape}")
    return replace(dataset, pool=pool)
