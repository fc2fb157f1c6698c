"""Ranks and intervals from verdicts, on boards whose answer a person can say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import lay
from scipy.stats import binomtest, t

from advbench.board.beside import key
from advbench.board.standing import _claim, standing, wilson
from advbench.board.support import Standing
from advbench.board.table import sections
from advbench.board.words import certainty, leads
from advbench.record import Accuracy, Scores, load

N = 400


def first(share: float) -> np.ndarray:
    """Verdicts of which the first so many stand: any two of them disagree on one side only."""
    return np.arange(N) < round(share * N)


def read(results: Path) -> Standing:
    found = [(path.parent, load(path)) for path in sorted(results.glob("records/*/*/record.json"))]
    (section,) = sections(record for _, record in found)
    return standing(section.groups, {key(record): folder for folder, record in found})


def test_checkpoints_are_ranked_by_mcnemar_and_holm(tmp_path: Path):
    # One-sided discordance of k: p = 2^(1-k). 4 of 400 is nothing (p 1/8), 40 is everything.
    for label, share in (("a", 0.60), ("b", 0.59), ("c", 0.49)):
        lay(tmp_path, label, 0, first(share))
    found = read(tmp_path)

    assert found.ranks == {"a": (1, 2), "b": (1, 2), "c": (3, 3)}
    assert found.better == {"a": ["c"], "b": ["c"], "c": []}
    assert found.claim == "checkpoints"
    assert leads(found, ["a", "b", "c"]) == "a and b lead and are not told apart (ranks 1–2 of 3)."
    assert "fewer than three seeds" in certainty(found)


@pytest.mark.parametrize(("apart", "told"), [(6, False), (7, True)])
def test_holm_counts_the_pairs(tmp_path: Path, apart: int, told: bool):
    # A leads c by far; a and b, and b and c, are 2^(1 - apart) sure, of which the first has to lie below 0.05 / 2.
    for i, label in enumerate("abc"):
        lay(tmp_path, label, 0, np.arange(N) < N // 2 - i * apart)

    assert read(tmp_path).better["a"] == (["b", "c"] if told else ["c"])


def test_three_seeds_speak_of_defenses_and_their_scatter_counts(tmp_path: Path):
    # Pooled over seeds steady leads loose by 5 points of 1,200 verdicts; but its own seeds lie 19 points apart.
    for seed, (steady, loose, low) in enumerate([(0.60, 0.66, 0.1), (0.60, 0.52, 0.1), (0.60, 0.47, 0.1)]):
        lay(tmp_path, "steady", seed, first(steady))
        lay(tmp_path, "loose", seed, first(loose))
        lay(tmp_path, "low", seed, first(low))
    found = read(tmp_path)

    assert found.claim == "defenses"
    assert found.ranks == {"steady": (1, 2), "loose": (1, 2), "low": (3, 3)}
    low, high = found.intervals["loose"]
    # Student's with two degrees of freedom and no less than what the seeds' own scatter says: 4.3 * 0.099 / sqrt(3).
    spread = np.std([0.66, 0.52, 0.47], ddof=1) / math.sqrt(3)
    assert high - low > 2 * 4.30 * spread
    assert found.intervals["steady"] == pytest.approx(wilson(0.6, N), abs=2e-3)


def test_few_seeds_beside_many_say_both(tmp_path: Path):
    for seed in range(3):
        lay(tmp_path, "a", seed, first(0.6))
        lay(tmp_path, "b", seed, first(0.3))
    lay(tmp_path, "c", 0, first(0.1))
    found = read(tmp_path)

    assert found.claim == "both"
    assert found.ranks == {"a": (1, 1), "b": (2, 2), "c": (3, 3)}
    assert leads(found, "abc") == "a is best (rank 1 of 3): better than all others."


def test_what_cannot_be_compared_has_no_rank_and_says_why(tmp_path: Path):
    for label in "ab":
        lay(tmp_path, label, 0, first(0.5))
    lay(tmp_path, "elsewhere", 0, first(0.9), index=np.arange(N) + 7)
    lay(tmp_path, "eps", 0, first(0.9), job={"threat": {"norm": "Linf", "eps": "1/255"}})
    lay(tmp_path, "failed", 0, first(0.9), status="failed", scores=None)
    (lay(tmp_path, "gone", 0, first(0.9)) / "examples.parquet").unlink()
    (lay(tmp_path, "other", 0, first(0.9)) / "examples.parquet").write_bytes(b"PAR1")
    found = read(tmp_path)

    assert found.ranks.keys() == {"a", "b"}
    assert found.unranked == {
        "elsewhere": "judged on other test examples",
        "eps": "under other settings",
        "failed": "it failed",
        "gone": "examples.parquet is missing",
        "other": "examples.parquet is not the file that the record was written with",
    }
    assert "gone (examples.parquet is missing)" in certainty(found)


def test_verdicts_that_do_not_add_up_are_not_believed(tmp_path: Path):
    folder = lay(tmp_path, "a", 0, first(0.5))
    text = (folder / "record.json").read_text("utf-8")
    assert text.count('"accuracy": 0.5') == 1
    (folder / "record.json").write_text(text.replace('"accuracy": 0.5', '"accuracy": 0.9'), "utf-8")

    assert read(tmp_path).unranked == {"a": "the verdicts of seed 0 do not add up to its score"}


def test_the_interval_is_wilson_s():
    for k in (0, 1, 40, 100):
        exact: Any = binomtest(k, 100).proportion_ci(0.95, method="wilson")
        assert wilson(k / 100, 100) == pytest.approx((exact.low, exact.high), abs=1e-12)


def students(rows: np.ndarray) -> tuple[float, float]:
    """95 % of the mean over seeds and examples, from the table of both: crossed, with random seeds and examples."""
    k, n = rows.shape
    y = rows.astype(float)
    residual = y - y.mean(0) - y.mean(1, keepdims=True) + y.mean()
    noise = (residual**2).sum() / ((k - 1) * (n - 1)) / n / k
    spread = y.mean(1).var(ddof=1) / k
    known = max(y.mean(0).var(ddof=1) / n, noise)
    variance = known + max(spread - noise, 0)
    half = t(int(variance**2 / (spread**2 / (k - 1) + known**2 / (n - 1)))).ppf(0.975) * math.sqrt(variance)
    return y.mean() - half, y.mean() + half


@pytest.mark.parametrize("shares", [(0.66, 0.52, 0.47), (0.5, 0.51, 0.5), (0.02, 0.3, 0.0), (1.0, 0.7, 0.99)])
def test_the_interval_of_three_seeds_is_the_wider_of_two_within_the_range(tmp_path: Path, shares):
    for seed, share in enumerate(shares):
        lay(tmp_path, "a", seed, first(share))
    rows = np.stack([*map(first, shares)])
    both = wilson(float(rows.mean()), N), students(rows)

    low, high = read(tmp_path).intervals["a"]
    assert low == pytest.approx(max(0, min(one for one, _ in both)))
    assert high == pytest.approx(min(1, max(other for _, other in both)))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_nothing_varies_the_interval_is_that_of_the_examples(tmp_path: Path, share):
    for seed in range(3):
        lay(tmp_path, "a", seed, first(share))

    assert read(tmp_path).intervals["a"] == pytest.approx(wilson(share, N), abs=1e-12)


@pytest.mark.parametrize(
    ("sizes", "claim"),
    [([3], "checkpoints"), ([1, 1], "checkpoints"), ([3, 2], "checkpoints"), ([3, 3], "defenses"), ([3, 3, 2], "both")],
)
def test_whom_a_board_speaks_of(sizes, claim):
    assert _claim(sizes) == claim


def test_one_seed_that_cannot_be_compared_keeps_its_defense_from_a_rank(tmp_path: Path):
    plain = Scores(clean=Accuracy(accuracy=1, low=0, high=1, n=N))
    for label in ("a", "b"):
        lay(tmp_path, label, 0, first(0.5))
    for label in ("unattacked", "eps", "elsewhere", "failed"):
        lay(tmp_path, label, 0, first(0.5))
    lay(tmp_path, "unattacked", 1, first(0.5), scores=plain)
    lay(tmp_path, "eps", 1, first(0.5), job={"threat": {"norm": "Linf", "eps": "1/255"}})
    lay(tmp_path, "elsewhere", 1, first(0.5), index=np.arange(N) + 7)
    lay(tmp_path, "failed", 1, first(0.5), status="failed", scores=None)
    found = read(tmp_path)

    assert found.unranked == {
        "unattacked": "not attacked to the end, so there is no robust accuracy",
        "eps": "under other settings",
        "elsewhere": "its seeds were judged on different test examples",
    }
    # A failed seed is left out and takes nothing from the others.
    assert found.ranks.keys() == {"a", "b", "failed"}


def test_where_nothing_can_be_judged_there_are_reasons_and_no_ranks(tmp_path: Path):
    lay(tmp_path, "a", 0, first(0.5), status="failed", scores=None)

    assert read(tmp_path) == Standing(unranked={"a": "it failed"})
