"""What the measures of committed records say of the field's claims:

    python docs/trends.py leaderboard studies/logistic > docs/trends.md

A claim is a sentence of a paper and a question that each record answers with yes or no; this page counts the answers.
It is made anew from the records and never edited, so it says what was measured, whichever way that went.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pandas as pd

from advbench.api import records

HEAD = """# What curvature says

`docs/trends.py` makes this page from the measures of the committed records. A number is the mean over the seeds, with
the lowest and the highest of them; *holds* counts the models, seed by seed, that a claim is true of. It is asked of all
but standard training: papers state it of adversarial training, so that input-gradient-regularisation, which attacks
nothing, stands in the counts as what it is. "standard" is the mean over the seeds of standard training under the same
task; without it nothing is compared with it. `advbench list collectors` and the board say what each measure is."""

LOGISTIC = """
## Adversarial logistic regression

`tasks/studies/{stem}.toml`. Yamada et al. 2021 (arXiv 2102.02950): the larger the perturbations of the training, the
larger the eigenvalues of the Hessian of the adversarial loss in the weights. The attack is that of each row's radius,
*fixed* where it was found or *moving* with the weights; `standard` never met an attack."""

SHOWN = {
    "robust": "robust accuracy",
    "measure/param-hessian/moving_top1": "largest eigenvalue, attack moving",
    "measure/param-hessian/fixed_top1": "attack fixed",
    "measure/param-hessian/clean_top1": "clean loss",
    "measure/sharpness/adversarial_curve_rise": "rise of the adversarial loss, nats",
    "measure/sharpness/clean_curve_rise": "of the clean loss",
}
NUMBERS = {
    "robust": "robust accuracy",
    "measure/input-hessian/clean_top1_median": "input Hessian, largest eigenvalue, median",
    "measure/input-hessian/clean_top1_mean": "mean",
    "measure/input-hessian/clean_confidence_median": "confidence, median",
    "measure/param-hessian/clean_top1": "weight Hessian, clean loss",
    "measure/param-hessian/fixed_top1": "adversarial loss",
    "measure/sharpness/adversarial_curve_rise": "rise of the adversarial loss, nats",
    "measure/fosc/fosc_relative_median": "relative FOSC, median",
    "measure/linearity/alignment_median": "cosine of gradients in the ball, median",
}


@dataclass(frozen=True)
class Claim:
    """A sentence, where it stands, and the question that a record answers."""

    text: str
    source: str
    needs: tuple[str, ...]
    """Columns that it reads."""
    holds: Callable[[Any, Any], bool]
    """Of a record's row and the means of standard training."""
    compares: bool = False
    """Whether it reads those means too."""


def _input(name: str) -> str:
    return f"measure/input-hessian/{name}"


CHENG = "Cheng et al. 2022, arXiv 2205.15130"
CLAIMS = (
    Claim(
        "The largest eigenvalue of the input Hessian is lower than a standard model's, in the median of the examples",
        CHENG,
        (_input("clean_top1_median"),),
        lambda row, standard: row[_input("clean_top1_median")] < standard[_input("clean_top1_median")],
        compares=True,
    ),
    Claim(
        "The same, in the mean of the examples",
        CHENG,
        (_input("clean_top1_mean"),),
        lambda row, standard: row[_input("clean_top1_mean")] < standard[_input("clean_top1_mean")],
        compares=True,
    ),
    Claim(
        "More than half of the attack's square lies along the first two eigenvectors of the input Hessian",
        CHENG,
        (_input("attack_energy_2"),),
        lambda row, _: row[_input("attack_energy_2")] > 0.5,
    ),
    Claim(
        "The closed form of the perturbation errs by less than 2 % at strength 0.2",
        f"{CHENG}, theorem 1",
        (_input("closed_form_error_0.2"),),
        lambda row, _: row[_input("closed_form_error_0.2")] < 0.02,
    ),
    Claim(
        "Examples whose loss bends more in the pixels are perturbed further by plain gradient ascent (Spearman > 0.9)",
        CHENG,
        (_input("size_follows_curvature"),),
        lambda row, _: row[_input("size_follows_curvature")] > 0.9,
    ),
    Claim(
        "The attack makes those examples louder in the weights that the model is least sure of (Spearman < 0)",
        CHENG,
        ("measure/influence/louder_with_confidence",),
        lambda row, _: row["measure/influence/louder_with_confidence"] < 0,
    ),
    Claim(
        "A tenth of the examples holds more of the squared gradients under attack than without",
        CHENG,
        ("measure/influence/adversarial_top_tenth", "measure/influence/clean_top_tenth"),
        lambda row, _: row["measure/influence/adversarial_top_tenth"] > row["measure/influence/clean_top_tenth"],
    ),
    Claim(
        "The adversarial loss bends more in the weights than the clean loss of the same model",
        "Yamada et al. 2021, arXiv 2102.02950",
        ("measure/param-hessian/fixed_top1", "measure/param-hessian/clean_top1"),
        lambda row, _: row["measure/param-hessian/fixed_top1"] > row["measure/param-hessian/clean_top1"],
    ),
    Claim(
        "The adversarial loss bends more in the weights than a standard model's adversarial loss",
        "Yamada et al. 2021, arXiv 2102.02950",
        ("measure/param-hessian/fixed_top1",),
        lambda row, standard: row["measure/param-hessian/fixed_top1"] > standard["measure/param-hessian/fixed_top1"],
        compares=True,
    ),
    Claim(
        "The gradient of the adversarial loss jumps more under Linf than under L2 (its log-log slope is lower)",
        "Kanai et al. 2021, arXiv 2103.01400",
        ("measure/smoothness/adversarial_Linf_slope", "measure/smoothness/adversarial_L2_slope"),
        lambda row, _: (
            row["measure/smoothness/adversarial_Linf_slope"] < row["measure/smoothness/adversarial_L2_slope"]
        ),
    ),
)


def number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}"


def spread(values: pd.Series) -> str:
    """`0.21 (0.2 to 0.23)`; a dash where nothing was measured."""
    known = values.dropna().astype(float)
    if known.empty:
        return "-"
    low, high = number(known.min()), number(known.max())
    return number(known.mean()) + (f" ({low} to {high})" if low != high else "")


def table(frame: pd.DataFrame, by: str, columns: dict[str, str], order: list[Any]) -> list[str]:
    """Markdown: a row a value of `by`, a column a measure."""
    shown = {name: title for name, title in columns.items() if name in frame}
    lines = [f"| {by} | {' | '.join(shown.values())} |", f"| --- |{' ---: |' * len(shown)}"]
    for value in order:
        rows = frame[frame[by] == value]
        lines.append(f"| {value} | {' | '.join(spread(rows[name]) for name in shown)} |")
    return lines


def rank(one: pd.Series, other: pd.Series) -> float:
    """Spearman's correlation; NaN where one of them is constant."""
    both = pd.DataFrame({"one": one.astype(float), "other": other.astype(float)}).dropna()
    return both["one"].corr(both["other"], method="spearman") if (both.nunique() > 1).all() else math.nan


def rises(frame: pd.DataFrame, column: str) -> str:
    """Whether the mean over seeds rises with the radius, and its rank correlation over all models."""
    means = frame.groupby(frame["eps"].map(Fraction))[column].mean().sort_index()
    if len(means) < 2 or means.isna().any():
        return "was not measured at two radii"
    steps = int((means.diff().dropna() > 0).sum())
    follows = rank(frame["eps"].map(lambda eps: float(Fraction(eps))), frame[column])
    return f"rises in {steps} of {len(means) - 1} steps of the radius (Spearman {follows:.2f} over {len(frame)} models)"


def logistic(frame: pd.DataFrame, stem: str) -> list[str]:
    """The sweep of one task file over radii."""
    lines = [LOGISTIC.format(stem=stem), ""]
    for defense in ("pgd-at", "standard"):
        rows = frame[frame["defense"] == defense]
        radii = sorted(set(rows["eps"]), key=Fraction)
        lines += [f"`{defense}`, {rows['seed'].nunique()} seeds:", "", *table(rows, "eps", SHOWN, radii), ""]
    trained = frame[frame["defense"] == "pgd-at"]
    lines += [
        f"* Of `pgd-at`, the largest eigenvalue with the attack moving {rises(trained, list(SHOWN)[1])}.",
        f"* With the attack fixed it {rises(trained, list(SHOWN)[2])}.",
        f"* That of the clean loss {rises(trained, list(SHOWN)[3])}.",
        f"* The rise of the adversarial loss along a filter-normalised direction {rises(trained, list(SHOWN)[4])}.",
    ]
    means = frame.groupby(["eps", "defense"])[list(SHOWN)[1]].mean().unstack()
    sharper = int((means["pgd-at"] > means["standard"]).sum())
    lines += [
        f"* At the same radius, `pgd-at` is sharper than `standard` in {sharper} of {len(means)}: what rises with the "
        "radius is the adversarial loss itself, of a model that was never trained on it too."
        if sharper < len(means) / 2
        else f"* At the same radius, `pgd-at` is sharper than `standard` in {sharper} of {len(means)}."
    ]
    return lines


def task(frame: pd.DataFrame, name: str) -> list[str]:
    """The defenses of one task, and which claims hold of them."""
    order = list(frame.groupby("label")["robust"].mean().sort_values(ascending=False).index)
    lines = ["", f"## {name}", "", *table(frame, "label", NUMBERS, order), ""]
    standard = frame[frame["defense"] == "standard"].mean(numeric_only=True)
    trained = frame[frame["defense"] != "standard"]
    lines += ["| claim | source | holds | does not of |", "| --- | --- | ---: | --- |"]
    for claim in CLAIMS:
        if not set(claim.needs) <= set(frame):
            continue
        if claim.compares and standard.reindex(claim.needs).isna().any():
            continue
        asked = trained.dropna(subset=list(claim.needs))
        answers = [bool(claim.holds(row, standard)) for _, row in asked.iterrows()]
        against = sorted({label for label, answer in zip(asked["label"], answers, strict=True) if not answer})
        lines.append(f"| {claim.text} | {claim.source} | {sum(answers)} of {len(answers)} | {', '.join(against)} |")
    found: list[str] = []
    for column, title in NUMBERS.items():
        if column == "robust" or column not in frame:
            continue
        follows = rank(trained[column], trained["robust"])
        if math.isfinite(follows):
            found.append(f"{title} {follows:+.2f}")
    lines += ["", f"Spearman correlation with robust accuracy over the {len(trained)} models: {'; '.join(found)}."]
    return lines


def page(*folders: str) -> str:
    """The page of all records in `folders` that have measures."""
    frame = pd.concat([records(folder) for folder in folders], ignore_index=True)
    measured = [name for name in frame if str(name).startswith("measure/")]
    frame = frame[(frame["status"] == "ok") & frame[measured].notna().any(axis=1)]
    lines = [HEAD]
    stems = frame["task"].str.partition("@")[0]
    for stem in sorted(set(stems[stems.str.startswith("logistic-")])):
        lines += logistic(frame[stems == stem], stem)
    for name in sorted(set(frame["task"][~stems.str.startswith("logistic-")])):
        lines += task(frame[frame["task"] == name].dropna(axis="columns", how="all"), name)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(*sys.argv[1:]))
