"""What collectors found, drawn: one figure a collector, from its arrays, by matplotlib (the extra advbench[plots]).

A figure shows what its array is and nothing that was not measured; a collector without arrays has none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advbench.spec import BadInput

Arrays = Mapping[str, NDArray[Any]]
"""The arrays of one collector by their names, as `measures.safetensors` has them behind its own name."""
COLOURS = {"clean": "#0072b2", "adversarial": "#d55e00", "fixed": "#d55e00", "moving": "#009e73"}
"""Okabe and Ito's, which the colour-blind tell apart."""
KINDS = ("png", "svg")


def ready() -> None:
    """Raises BadInput where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise BadInput("figures need matplotlib: pip install 'advbench[plots]'")


def draw(collector: str, arrays: Arrays, title: str, kind: str) -> bytes | None:
    """The figure as a file of `kind`, png or svg; None where this collector has none. Equal arrays give equal bytes."""
    if collector not in FIGURES or not arrays:
        return None
    import matplotlib as mpl
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes: Any = figure.subplots(1, 2)
    FIGURES[collector](axes, arrays)
    for one in axes:
        if not one.has_data():
            one.set_axis_off()
    figure.suptitle(f"{title}: {collector}", fontsize="medium")
    content = io.BytesIO()
    # Neither a date nor random names of clip paths, so that equal measures are equal files.
    with mpl.rc_context({"svg.hashsalt": "advbench"}):
        figure.savefig(content, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return content.getvalue()


def finite(values: NDArray[Any]) -> NDArray[Any]:
    """What can be drawn."""
    return values[np.isfinite(values)]


def histograms(axes: Any, arrays: Arrays, name: str, label: str) -> None:
    """Of an array (N,), clean beside adversarial where there are both, over one set of bins."""
    found = {
        where: finite(arrays[f"{where}_{name}"]) for where in ("clean", "adversarial") if f"{where}_{name}" in arrays
    }
    bins = np.histogram_bin_edges(np.concatenate(list(found.values())), 40)
    for where, values in found.items():
        axes.hist(values, bins, label=where, color=COLOURS[where], alpha=0.6)
    axes.set(xlabel=label, ylabel="examples")
    axes.legend(fontsize="small")


def calibration(axes: Any, arrays: Arrays) -> None:
    """Accuracy against confidence by bin; on the diagonal a model is as sure as it is right."""
    for where, one in zip(("clean", "adversarial"), axes, strict=True):
        if f"{where}_count" not in arrays:  # no attack reaches this model
            continue
        some = arrays[f"{where}_count"] > 0
        sizes = 8 + 100 * arrays[f"{where}_count"][some] / arrays[f"{where}_count"].sum()
        one.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        one.scatter(arrays[f"{where}_confidence"][some], arrays[f"{where}_accuracy"][some], sizes, COLOURS[where])
        one.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02), title=where)


def certified(axes: Any, arrays: Arrays) -> None:
    """What part of the examples leads by how much at the least, anywhere in the ball; to the right of 0 is proven."""
    for name, said in (("interval_margin", "interval bounds"), ("margin", "with CROWN")):
        at = np.sort(finite(arrays[name]))
        axes[0].step(at, 1 - np.arange(len(at)) / len(at), label=said)
    axes[0].axvline(0, color="0.6", linewidth=0.8)
    axes[0].set(xlabel="proven margin, logits", ylabel="share of examples", ylim=(0, 1))
    axes[0].set_xscale("symlog")
    axes[0].legend(fontsize="small")


def fosc(axes: Any, arrays: Arrays) -> None:
    """By step of the attack: the median, and half of all examples between the shades."""
    for one, name, label in zip(
        axes, ("fosc", "fosc_relative"), ("FOSC, nats", "FOSC / (eps |gradient|)"), strict=True
    ):
        low, middle, high = np.nanquantile(arrays[name], [0.25, 0.5, 0.75], axis=0)
        steps = np.arange(len(middle))
        one.fill_between(steps, low, high, alpha=0.3, linewidth=0, color=COLOURS["adversarial"])
        one.plot(steps, middle, color=COLOURS["adversarial"])
        one.set(xlabel="step", ylabel=label, ylim=(0, None))


def influence(axes: Any, arrays: Arrays) -> None:
    """Each example's two gradients, and what share of their squares the loudest examples hold."""
    clean, adversarial = arrays["clean_length"], arrays["adversarial_length"]
    seen = (clean > 0) & (adversarial > 0)
    axes[0].loglog(clean[seen], adversarial[seen], ".", markersize=3, color="0.3")
    axes[0].set(xlabel="|clean gradient|", ylabel="|adversarial gradient|, nats / weight unit")
    for where in ("clean", "adversarial"):
        squares = np.sort(finite(arrays[f"{where}_length"]).astype(float) ** 2)[::-1]
        if squares.sum() > 0:
            share = np.arange(1, len(squares) + 1) / len(squares)
            axes[1].plot(share, np.cumsum(squares) / squares.sum(), label=where, color=COLOURS[where])
    axes[1].set(
        xlabel="share of examples, loudest first", ylabel="share of squared gradients", xlim=(0, 1), ylim=(0, 1)
    )
    axes[1].legend(fontsize="small")


def input_hessian(axes: Any, arrays: Arrays) -> None:
    """The largest eigenvalue against confidence, and what share of the attack lies along the first eigenvectors."""
    for where in ("clean", "adversarial"):
        top = arrays[f"{where}_values"][:, 0]
        seen = top > 0
        axes[0].semilogy(
            arrays[f"{where}_confidence"][seen], top[seen], ".", markersize=3, color=COLOURS[where], label=where
        )
    axes[0].set(xlabel="confidence", ylabel="largest eigenvalue, nats / pixel²")
    axes[0].legend(fontsize="small", markerscale=2)
    for column, said in enumerate(("first", "first two")):
        energy = arrays["attack_energy"][:, column]
        axes[1].plot(np.arange(1, len(energy) + 1), energy, marker=".", label=f"{said} eigenvector{'s' * column}")
    axes[1].set(xlabel="step of the attack", ylabel="share of its square, median", ylim=(0, 1))
    axes[1].legend(fontsize="small")


def linearity(axes: Any, arrays: Arrays) -> None:
    """How far the loss is from a plane in the ball, and its gradient from turning."""
    for one, name, label in zip(
        axes, ("error", "alignment"), ("local linearity error, nats", "cosine of the gradients"), strict=True
    ):
        one.hist(finite(arrays[name]), 40, color=COLOURS["adversarial"])
        one.set(xlabel=label, ylabel="examples")


def margins(axes: Any, arrays: Arrays) -> None:
    """How far examples stand on the right side (above 0) of the boundary."""
    histograms(axes[0], arrays, "margin", "margin, logits")
    histograms(axes[1], arrays, "distance", "linearised distance to the boundary, pixels")


def param_hessian(axes: Any, arrays: Arrays) -> None:
    """The spectral density, and the largest eigenvalues with their error bounds."""
    for loss in ("clean", "fixed", "moving"):
        if f"{loss}_density" not in arrays:
            continue
        said = {"clean": "clean", "fixed": "adversarial", "moving": "adversarial, attack moving"}[loss]
        axes[0].semilogy(arrays[f"{loss}_density_at"], arrays[f"{loss}_density"], label=said, color=COLOURS[loss])
        values, errors = arrays[f"{loss}_values"], arrays[f"{loss}_errors"]
        rank = np.flatnonzero(np.isfinite(values) & np.isfinite(errors))
        axes[1].errorbar(rank + 1, values[rank], errors[rank], fmt=".", color=COLOURS[loss], label=said)
    axes[0].set(xlabel="eigenvalue, nats / weight unit²", ylabel="density")
    highest = max((float(finite(line.get_ydata()).max(initial=0)) for line in axes[0].get_lines()), default=0)
    if highest > 0:  # of a network whose curvature is not finite there is nothing to see
        axes[0].set_ylim(1e-8 * highest, 2 * highest)
    axes[1].set(xlabel="rank", ylabel="eigenvalue", ylim=(0, None))
    axes[1].legend(fontsize="small")


def sharpness(axes: Any, arrays: Arrays) -> None:
    """The loss along a filter-normalised random direction, and over two of them."""
    for where in ("clean", "adversarial"):
        axes[0].plot(arrays["curve_at"], arrays[f"{where}_curve"], marker=".", color=COLOURS[where], label=where)
    axes[0].set(xlabel="share of the filters' lengths", ylabel="loss, nats")
    axes[0].legend(fontsize="small")
    at = arrays.get("surface_at", ())
    if len(at) > 1:  # a single point has no level lines
        lines = axes[1].contour(at, at, arrays["adversarial_surface"].T, 12, cmap="viridis")
        axes[1].clabel(lines, fontsize="x-small")
        axes[1].set(xlabel="first direction", ylabel="second", title="adversarial loss, nats")


def smoothness(axes: Any, arrays: Arrays) -> None:
    """Rate of change of the gradient against the step: level where smooth, falling like 1 / h where it jumps."""
    for name in sorted(arrays):
        if name.endswith("_rate"):
            axes[0].loglog(
                arrays["sizes"], arrays[name], marker=".", label=name.removesuffix("_rate").replace("_", " ")
            )
    axes[0].set(xlabel="h, share of the weights' length", ylabel="nats / weight unit²")
    axes[0].legend(fontsize="small")


def sparsity(axes: Any, arrays: Arrays) -> None:
    """What share of the gates an example shuts."""
    histograms(axes[0], arrays, "shut", "share of ReLU gates shut")


FIGURES: dict[str, Callable[[Any, Arrays], None]] = {
    "calibration": calibration,
    "certified": certified,
    "fosc": fosc,
    "influence": influence,
    "input-hessian": input_hessian,
    "linearity": linearity,
    "margins": margins,
    "param-hessian": param_hessian,
    "sharpness": sharpness,
    "smoothness": smoothness,
    "sparsity": sparsity,
}
