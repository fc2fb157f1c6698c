"""The arrays behind a record's measures, thinned to what a chart shows: spectra, surfaces, and shares of examples."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advbench.board.beside import Lost, tensors
from advbench.board.overview import digits
from advbench.record import MEASURES, Record

Array = NDArray[np.float64]

POINTS = 120
"""Of a curve."""
SIDE = 41
"""Of a surface; a larger one is left to its file."""
QUANTILES = 41
"""Of the values of all examples: their share at or below, from 0 to 1."""

EACH = (
    *("input-hessian/clean_values", "input-hessian/adversarial_values"),
    *("margins/clean_distance", "margins/adversarial_distance"),
)
"""Arrays with a number, or a row of eigenvalues, for every example."""


def of(folder: Path, record: Record) -> dict[str, Any] | None:
    """By chart: `density`, `line`, `surface`, `each` and `fosc`. None where nothing was collected. Raises Lost."""
    if MEASURES not in record.files:
        return None
    raw = tensors(folder, record, MEASURES)
    kept = {
        name: value.astype(float) for name, value in sorted(raw.items()) if value.size and value.dtype.kind in "fiu"
    }
    found: dict[str, Any] = {}
    for loss in ("clean", "fixed", "moving"):
        if made := _curve(kept, f"param-hessian/{loss}_density_at", f"param-hessian/{loss}_density"):
            found.setdefault("density", {})[loss] = made
    for loss in ("clean", "adversarial"):
        if made := _curve(kept, "sharpness/curve_at", f"sharpness/{loss}_curve"):
            found.setdefault("line", {})[loss] = made
        if made := _surface(kept, "sharpness/surface_at", f"sharpness/{loss}_surface"):
            found.setdefault("surface", {})[loss] = made
    for name in EACH:
        if (made := _quantiles(kept.get(name))) is not None:
            found.setdefault("each", {})[name] = made
    if (steps := _steps(kept.get("fosc/fosc_relative"))) is not None:
        found["fosc"] = steps
    if raw and not kept:
        raise Lost(f"{MEASURES} holds no numbers")
    return found or None


def _curve(kept: dict[str, Array], at: str, name: str) -> list[list[float | None]] | None:
    """[x, y], thinned by taking every so manieth point."""
    x, y = kept.get(at), kept.get(name)
    if x is None or y is None or x.ndim != 1 or x.shape != y.shape:
        return None
    some = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return [_round(x[some]), _round(y[some])]


def _surface(kept: dict[str, Array], at: str, name: str) -> dict[str, Any] | None:
    x, z = kept.get(at), kept.get(name)
    if x is None or z is None or x.ndim != 1 or len(x) > SIDE or z.shape != (len(x), len(x)):
        return None
    return {"at": _round(x), "loss": [_round(row) for row in z]}


def _quantiles(values: Array | None) -> list[float | None] | None:
    """Of (examples,) or, of (examples, k) eigenvalues, of the largest."""
    if values is None or values.ndim not in (1, 2):
        return None
    one = values if values.ndim == 1 else values[:, 0]
    finite = one[np.isfinite(one)]
    return _round(np.quantile(finite, np.linspace(0, 1, QUANTILES))) if len(finite) else None


def _steps(values: Array | None) -> list[list[float | None]] | None:
    """The quartiles over examples at each step of (examples, steps): lower, middle, upper."""
    if values is None or values.ndim != 2 or values.shape[1] > POINTS or not np.isfinite(values).all():
        return None
    return [_round(row) for row in np.quantile(values, [0.25, 0.5, 0.75], axis=0)]


def _round(values: Iterable[float]) -> list[float | None]:
    return [digits(float(value), 4) for value in values]
