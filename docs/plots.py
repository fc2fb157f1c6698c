"""The three plots that people put in papers, from a folder of records: pip install 'advbench[plots]', then

python docs/plots.py leaderboard plots

writes curves.pdf, cost.pdf and seeds.pdf for each task. Copy what you need: each plot is one function of the table.
"""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd

from advbench.api import records


def curves(axes: Any, frame: pd.DataFrame) -> None:
    """Accuracy against radius: the mean over seeds, and all seeds between the shades. Radius 0 is clean accuracy."""
    columns = {Fraction(name.removeprefix("curve/")): name for name in frame if str(name).startswith("curve/")}
    radii = sorted(columns)
    for number, (label, rows) in enumerate(frame.groupby("label")):
        table = rows[["clean", *(columns[eps] for eps in radii)]].astype(float)
        x = [0.0, *map(float, radii)]
        dash = ("-", "--", ":")[number // 10 % 3]  # there are ten colours
        [line] = axes.plot(x, 100 * table.mean(), dash, marker=".", label=label)
        axes.fill_between(x, 100 * table.min(), 100 * table.max(), alpha=0.2, color=line.get_color(), linewidth=0)
    axes.set(xlabel="radius", ylabel="accuracy, %", ylim=(0, 100))
    if frame["label"].nunique() > FEW:  # beside the curves, which they would cover
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    else:
        axes.legend(fontsize="small")


def front(cost: pd.Series, accuracy: pd.Series) -> list[Any]:
    """Keys of the Pareto front by rising cost: whatever costs no more is less accurate."""
    best, found = float("-inf"), list[Any]()
    order = pd.DataFrame({"cost": cost, "accuracy": accuracy}).sort_values(
        ["cost", "accuracy"], ascending=[True, False]
    )
    for key, value in order["accuracy"].items():
        if value > best:
            best = float(value)
            found.append(key)
    return found


def cost(axes: Any, frame: pd.DataFrame) -> None:
    """Robust accuracy against example passes of the training, means over seeds, with the Pareto front.

    What was trained elsewhere has no cost that anybody counted and is left out.
    """
    means = frame.dropna(subset=["train_passes", "robust"]).groupby("label")[["train_passes", "robust"]].mean()
    best = means.loc[front(means["train_passes"], means["robust"])]
    axes.step(best["train_passes"], 100 * best["robust"], where="post", color="0.7", zorder=1)
    axes.scatter(means["train_passes"], 100 * means["robust"], zorder=2)
    for label, row in means.iterrows():
        place = (row["train_passes"], 100 * row["robust"])
        said = axes.annotate(label, place, xytext=(4, 4), textcoords="offset points", fontsize="x-small")
        said.set_in_layout(False)  # a long name takes no room from the axes
    axes.margins(x=0.12)
    axes.set(xscale="log" if len(means) else "linear", xlabel="training, example passes", ylabel="robust accuracy, %")


def seeds(axes: Any, frame: pd.DataFrame) -> None:
    """Robust accuracy of every seed with its own 95 % interval: how far defenses and seeds lie apart."""
    means = frame.groupby("label")["robust"].mean().sort_values()
    for place, label in enumerate(means.index):
        rows = frame[frame["label"] == label].dropna(subset=["robust"]).sort_values("seed")
        spread = [place + 0.12 * (i - (len(rows) - 1) / 2) for i in range(len(rows))]
        ends = [100 * (rows["robust"] - rows["robust_low"]), 100 * (rows["robust_high"] - rows["robust"])]
        axes.errorbar(100 * rows["robust"], spread, xerr=ends, fmt="o", markersize=4, linewidth=1)
    axes.set_yticks(range(len(means)), means.index)
    axes.set(xlabel="robust accuracy, %")


FEW = 8
"""Defenses that a figure of a paper's column has room for; of more it is larger."""

PLOTS = {"curves": curves, "cost": cost, "seeds": seeds}


def main(source: str, target: str, kind: str = "pdf") -> None:
    """Every plot of every task in the folder `source`, into `target`."""
    mpl.use("Agg")
    from matplotlib import pyplot

    frame = records(source)
    # Where no model was attacked to the end, no record has them.
    frame = frame.reindex(columns=frame.columns.union(["robust", "robust_low", "robust_high"], sort=False))
    for task, rows in frame[frame["status"] == "ok"].groupby("task"):
        # Radii of other tasks; of what this one did not measure its plots say nothing.
        rows = rows.drop(columns=[name for name in rows if str(name).startswith("curve/") and rows[name].isna().all()])
        for name, plot in PLOTS.items():
            count = rows["label"].nunique()
            size = (5, 3.2) if count <= FEW else (7, max(3.2, 1 + 0.2 * count))
            figure, axes = pyplot.subplots(figsize=size, layout="constrained")
            plot(axes, rows)
            axes.set_title(str(task), fontsize="medium")
            path = Path(target) / f"{re.sub('[^A-Za-z0-9._@=-]', '-', str(task))}-{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path)
            pyplot.close(figure)


if __name__ == "__main__":
    main(*sys.argv[1:])
