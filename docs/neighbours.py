"""Defenses beside PGD-AT, from the committed records:

    python docs/neighbours.py leaderboard > docs/neighbours.md

What each costs a step and holds, and which orderings that papers published are found again here. It is made anew from
the records and never edited, so it says what was measured, whichever way that went.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from advbench.api import compare, records
from advbench.compare.read import read
from advbench.spec import BadInput
from advbench.stats.difference import LEAST_SEEDS, Groups, Moments

REFERENCE = "pgd-at"

HEAD = """# The neighbours

`docs/neighbours.py` makes this page from the committed records. *robust* is the mean over the seeds that ended, with
the lowest and the highest of them; *beside pgd-at* is the difference of robust accuracy in points with its 95 %
interval over seeds and examples (`advbench compare`), over examples alone and so of these checkpoints where a row has
fewer than three seeds. *Passes* are forward and backward example passes a training
example, *seconds* those of the whole training, both as multiples of pgd-at's; seconds are of one shared machine. A
*collapsed* seed has the flag catastrophic-overfitting, *other flags* has what else was raised.

An ordering is published where a paper's own tables have it, most often for CIFAR-10 and a ResNet; these are small
networks on small images with one recipe for all. *Found* is where the interval lies on the published side of 0,
*reversed* on the other, *not told apart* where it holds 0.

Where the collector `certified` looked, the truth is bracketed: *proven* is the share of its examples that interval
bounds or CROWN prove robust, *attacked* the share of the same ones that PGD-20 leaves right.

A published figure stands beside ours where data set, threat and defense are the same. None has our network, our recipe
and our attacks too, so each row says what differs; *beyond* the interval is a figure that another draw of seeds and
examples does not explain."""


@dataclass(frozen=True)
class Ordering:
    """A published one: `better` held more robust accuracy than `worse`."""

    better: str
    worse: str
    source: str


PUBLISHED = (
    Ordering("pgd-at", "fast-at", "Wong et al. 2020, arXiv 2001.03994"),
    Ordering("dynamic-at", "pgd-at", "Wang et al. 2019, arXiv 2112.08304"),
    Ordering("fast-bat", "fast-at", "Zhang et al. 2022, arXiv 2112.12376"),
    Ordering("trades", "pgd-at", "Zhang et al. 2019, arXiv 1901.08573"),
    Ordering("mart", "trades", "Wang et al. 2020, ICLR (MART)"),
    Ordering("awp", "pgd-at", "Wu et al. 2020, arXiv 2004.05884"),
    Ordering("awp-trades", "trades", "Wu et al. 2020, arXiv 2004.05884"),
    Ordering("n-fgsm", "fast-at", "de Jorge et al. 2022, arXiv 2202.01181"),
    Ordering("gradalign", "fast-at", "Andriushchenko, Flammarion 2020, arXiv 2007.02617"),
    Ordering("zero-grad", "fast-at", "Golgooni et al. 2021, arXiv 2103.15476"),
    Ordering("guided-at", "fast-at", "Sriramanan et al. 2020, arXiv 2011.14969"),
    Ordering("nu-at", "guided-at", "Sriramanan et al. 2021, NeurIPS (NuAT)"),
    Ordering("fgsm-pgi", "fast-at", "Jia et al. 2022, arXiv 2207.08859"),
    Ordering("elle", "fast-at", "Abad Rocamora et al. 2024, arXiv 2401.11618"),
    Ordering("consistency", "pgd-at", "Tack et al. 2022, arXiv 2103.04623"),
    Ordering("mean-teacher", "pgd-at", "Zhang et al. 2022, arXiv 2205.11744"),
    Ordering("entropy-sgd", "pgd-at", "Kanai et al. 2021, arXiv 2103.01400"),
    Ordering("input-gradient-regularisation", "standard", "Ross, Doshi-Velez 2018, arXiv 1711.09404"),
)


@dataclass(frozen=True)
class Figure:
    """A published robust accuracy, in percent, of a task's data set, threat and defense."""

    task: str
    label: str
    robust: float
    attack: str
    source: str
    differs: str
    """From the task of the record: the network, the training and the examples."""


FIGURES = (
    Figure(
        "mnist-linf",
        "pgd-at",
        88.00,
        "the strongest white-box attack sent in",
        "MadryLab/mnist_challenge, README",
        "20 times the weights (convolutions of 32 and 64 filters and 1,024 units), 100,000 steps of 50 images by PGD-40"
        " and Adam at 1e-4 where here are 10 epochs by PGD-10; all 10,000 test examples",
    ),
    Figure(
        "mnist-linf",
        "pgd-at",
        89.62,
        "PGD-100, 50 restarts",
        "MadryLab/mnist_challenge, README",
        "as above",
    ),
)


def spread(values: pd.Series) -> str:
    """`76.2 (75.0 to 77.8)` in percent; a dash where nothing was measured."""
    known = 100 * values.dropna().astype(float)
    if known.empty:
        return "-"
    return f"{known.mean():.1f} ({known.min():.1f} to {known.max():.1f})"


def interval(folder: Path, task: str, one: str, other: str) -> tuple[float, float, float] | None:
    """Points by which `other` holds more than `one`, and 95 % of that; None where they cannot be compared."""
    place = folder / "records" / task
    try:
        change = compare(place / one, place / other).main.change
    except BadInput:
        return None
    if change is None:
        return None
    low, high = change.interval()
    return 100 * float(change.value), 100 * float(low), 100 * float(high)


def said(found: tuple[float, float, float] | None) -> str:
    """`+1.2 (-0.4 to +2.8)`."""
    return f"{found[0]:+.1f} ({found[1]:+.1f} to {found[2]:+.1f})" if found else "-"


def multiple(rows: pd.DataFrame, reference: pd.DataFrame, column: str) -> str:
    """Of the reference's mean."""
    base, mine = reference[column].astype(float).mean(), rows[column].astype(float).mean()
    return f"{mine / base:.2f}x" if base > 0 and mine > 0 else "-"


def own(place: Path) -> tuple[float, float, float] | None:
    """Robust accuracy of a defense in percent and 95 % of it over seeds and examples; None with too few seeds.

    It is the difference from a row that is never right.
    """
    [group] = read(place)
    rows = [one.robust for one in group.results if one.robust is not None]
    if (m := len(rows)) < LEAST_SEEDS:
        return None
    never = [np.zeros_like(rows[0])] * m
    change = Groups.of(Moments.of(np.array([*never, *rows])), [range(m), range(m, 2 * m)]).defenses()
    low, high = change.interval()
    return 100 * float(change.value), 100 * float(low), 100 * float(high)


def figures(folder: Path, name: str, there: set[str]) -> list[str]:
    """Published figures beside those of the records."""
    lines = ["", "| defense | published % | by | here % | | source | what differs |"]
    lines += ["| --- | ---: | --- | ---: | --- | --- | --- |"]
    for one in FIGURES:
        if one.task != name or one.label not in there or not (mine := own(folder / "records" / name / one.label)):
            continue
        value, low, high = mine
        verdict = "within" if low <= one.robust <= high else "beyond"
        cells = [one.label, f"{one.robust:.2f}", one.attack, f"{value:.1f} ({low:.1f} to {high:.1f})", verdict]
        lines.append(f"| {' | '.join([*cells, one.source, one.differs])} |")
    return lines if len(lines) > 3 else []


def flags(rows: pd.DataFrame) -> tuple[int, str]:
    """How many seeds collapsed, and the other flags with their counts."""
    raised = [name.strip() for names in rows["flags"] for name in str(names).split(",") if name.strip()]
    counts = pd.Series(raised, dtype=str).value_counts()
    collapsed = int(counts.pop("catastrophic-overfitting")) if "catastrophic-overfitting" in counts else 0
    return collapsed, ", ".join(f"{name} {counts[name]}" for name in sorted(counts.index))


def task(frame: pd.DataFrame, folder: Path, name: str) -> list[str]:
    """The defenses of one task, then the published orderings of those that are there."""
    ended = frame[frame["status"] == "ok"]
    order = list(ended.groupby("label")["robust"].mean().sort_values(ascending=False).index)
    reference = ended[ended["label"] == REFERENCE]
    lines = ["", f"## {name}", ""]
    lines += ["| defense | seeds | robust % | beside pgd-at | clean % | passes | seconds | collapsed | other flags |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    for label in order:
        rows = ended[ended["label"] == label]
        collapsed, others = flags(rows)
        beside = "" if label == REFERENCE else said(interval(folder, name, REFERENCE, label))
        costs = [multiple(rows, reference, column) for column in ("train_passes", "train_seconds")]
        cells = [label, str(len(rows)), spread(rows["robust"]), beside, spread(rows["clean"]), *costs]
        lines.append(f"| {' | '.join(cells)} | {collapsed} | {others} |")
    if failed := sorted(set(frame["label"]) - set(order)):
        lines += ["", f"Without a finished seed: {', '.join(failed)}."]
    return [
        *lines,
        "",
        *orderings(folder, name, set(order)),
        *bracketed(ended, order),
        *figures(folder, name, set(order)),
    ]


def bracketed(frame: pd.DataFrame, order: Sequence[str]) -> list[str]:
    """Between which bounds the truth lies, where something was proven of every seed or tried to be."""
    columns = ["measure/certified/certified_interval", "measure/certified/certified", "measure/certified/attacked"]
    if not set(columns) <= set(frame.columns):
        return []
    lines = ["", "| defense | proven by intervals % | proven % | attacked % |", "| --- | ---: | ---: | ---: |"]
    for label in order:
        rows = frame[frame["label"] == label]
        if rows[columns].notna().all(axis=None):
            lines.append(f"| {' | '.join([label, *(spread(rows[column]) for column in columns)])} |")
    return lines if len(lines) > 3 else []


def orderings(folder: Path, name: str, there: set[str]) -> list[str]:
    """Which of the published ones are found here."""
    lines = ["| published | source | here, in points | verdict |", "| --- | --- | ---: | --- |"]
    counts: dict[str, int] = {}
    for one in PUBLISHED:
        if not {one.better, one.worse} <= there:
            continue
        found = interval(folder, name, one.worse, one.better)
        verdict = judged(found)
        counts[verdict] = counts.get(verdict, 0) + 1
        lines.append(f"| {one.better} over {one.worse} | {one.source} | {said(found)} | {verdict} |")
    total = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return [*lines, "", f"Of {sum(counts.values())} published orderings: {total}."] if counts else []


def judged(found: tuple[float, float, float] | None) -> str:
    """Of a published ordering."""
    if found is None:
        return "not compared"
    _, low, high = found
    return "found" if low > 0 else "reversed" if high < 0 else "not told apart"


def page(folders: Sequence[str]) -> str:
    """The page of all records in `folders`."""
    lines = [HEAD]
    for folder in map(Path, folders):
        frame = records(folder)
        for name in sorted(set(frame["task"])):
            here = frame[frame["task"] == name]
            if REFERENCE in set(here["label"]):
                lines += task(here, folder, name)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(sys.argv[1:]))
