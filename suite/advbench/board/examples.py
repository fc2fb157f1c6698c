"""A record's test examples one by one, and the images that broke some of them, small enough for a page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advbench.board.beside import Lost, table, tensors
from advbench.board.overview import digits
from advbench.record import Record

ROWS = 1_000
"""Examples of a record on the page at most, the first ones; the file has all."""
IMAGES = 24
"""Images of a record on the page at most, the first ones; fewer where they are large."""
PIXELS = 20_000
"""Bytes that they may take together at most, and the clean ones beside them as many."""
SIDE = 64
"""Pixels of an image's side; of a larger one every so manieth pixel is kept."""
POINTS = 60
"""Of the curve of distances."""

ADVERSARIAL = "adversarial.safetensors"


def of(folder: Path, record: Record, rows: int = ROWS) -> dict[str, Any] | None:
    """The columns of examples.parquet, by example, of the first `rows`. None where the record came without.

    Raises Lost.
    """
    if "examples.parquet" not in record.files:
        return None
    names = ["index", "label", "predicted", "margin", "distance", "broken_by", "forward", "backward"]
    found = table(folder, record, names)
    try:
        broken = found["broken_by"].indices.fill_null(-1).to_numpy()
        attacks: list[str] = found["broken_by"].dictionary.to_pylist()
        index, label, predicted = (_whole(found[name]) for name in names[:3])
        margin, distance = (_real(found.get(name), len(broken)) for name in ("margin", "distance"))
        passes = sum((_whole(found[name]) for name in ("forward", "backward") if name in found), np.zeros(len(broken)))
    except (KeyError, AttributeError, ValueError, TypeError, NotImplementedError):
        raise Lost("examples.parquet lacks a column, or has another kind of numbers in it") from None
    clean = attacks.index("clean") if "clean" in attacks else len(attacks)
    some = slice(0, min(rows, ROWS))
    return {
        "n": len(broken),
        "index": index[some].tolist(),
        "label": label[some].tolist(),
        "predicted": predicted[some].tolist(),
        "attacks": attacks,
        "broken": broken[some].tolist(),
        "margin": [digits(float(value), 3) for value in margin[some]],
        "distance": [digits(float(value), 3) for value in distance[some]],
        "passes": [int(value) for value in passes[some]],
        "standing": standing(np.where(broken == clean, 0, distance)),
    }


def standing(distance: NDArray[np.float64]) -> list[list[float | None]]:
    """[r, share]: of all examples, those for which no point that fools the model is known within r; NaN is unknown."""
    known = np.sort(distance[np.isfinite(distance)])
    at = np.unique(known)
    if len(at) > POINTS:
        at = at[np.linspace(0, len(at) - 1, POINTS).round().astype(int)]
    fallen = np.searchsorted(known, at, side="right") / len(distance)
    return [[digits(float(x), 4) for x in at], [digits(float(1 - share), 4) for share in fallen]]


def images(folder: Path, record: Record, pixels: int = PIXELS) -> dict[str, Any] | None:
    """The first images that broke an example, up to so many bytes of `pixels`, in base64. None without any.

    Raises Lost.
    `images` (N, C, H, W) and, where a record keeps it, `clean` of the same shape lie in [0, 1].
    """
    if ADVERSARIAL not in record.files:
        return None
    found = tensors(folder, record, ADVERSARIAL)
    index, pictures, clean = (found.get(name) for name in ("index", "images", "clean"))
    if index is None or pictures is None or index.ndim != 1 or index.dtype.kind not in "iu":
        raise Lost(f"{ADVERSARIAL} lacks images or their index")
    if pictures.ndim != 4 or len(pictures) != len(index) or pictures.shape[1] not in (1, 3) or 0 in pictures.shape[1:]:
        raise Lost(f"{ADVERSARIAL} has images of shape {tuple(pictures.shape)}, not ({len(index)}, 1 or 3, H, W)")
    if not len(index):
        return None
    step = -(-max(pictures.shape[2:]) // SIDE)
    seen = pictures[:, :, ::step, ::step]
    some = slice(0, max(1, min(IMAGES, min(pixels, PIXELS) // seen[0].size)))
    made: dict[str, Any] = {
        "n": len(index),
        "shape": list(seen.shape[1:]),
        "step": step,
        "index": index[some].tolist(),
        "pixels": [_bytes(image) for image in seen[some]],
    }
    if clean is not None and clean.shape == pictures.shape:
        made["clean"] = [_bytes(image) for image in clean[some, :, ::step, ::step]]
    return made


def _bytes(image: NDArray[Any]) -> str:
    """(C, H, W) in [0, 1] as H x W x C bytes."""
    pixels = np.nan_to_num(np.moveaxis(image, 0, -1).astype(np.float32)).clip(0, 1)
    return base64.b64encode((255 * pixels).round().astype(np.uint8).tobytes()).decode()


def _whole(column: Any) -> NDArray[np.int64]:
    if column.null_count:
        raise ValueError
    return np.asarray(column.to_numpy()).astype(np.int64)


def _real(column: Any, n: int) -> NDArray[np.float64]:
    if column is None:
        return np.full(n, np.nan)
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype=np.float64)
