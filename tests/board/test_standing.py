"""Ranks and intervals from verdicts, on boards whose answer a person can say."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hand_made import lay
from scipy.stats import binomtest

from advbench.board.beside import key
from advbench.board.standing import standing, wilson
from advbench.board.support import Standing
from advbench.board.table import sections
from advbench.board.words import certainty, leads, listed
from advbench.record import load

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


def test_who_leads_in_words():
    def said(**ranks: tuple[int, int]) -> str:
        return leads(Standing(ranks=ranks), list(ranks), ["b"])

    assert said(a=(1, 1), b=(2, 2)) == "a is best (rank 1 of 2): better than the other."
    assert said(a=(1, 3), c=(1, 5), b=(1, 6), d=(2, 6)) == (
        "a leads (ranks 1–3 of 4); not told apart from it: c (1–5) and b (1–6). Read the notes of b first."
    )
    assert said(a=(1, 2), c=(2, 3), d=(2, 3)) == "a leads (ranks 1–2 of 3)."
    assert said(a=(1, 1)) == "Only a was judged to the end, so there is nothing to rank it against."
    assert said() == "Nothing here has a rank: nothing was judged."
    many = {f"d{i:02d}": (1, 20) for i in range(20)}
    assert said(**many) == "d00 leads (ranks 1–20 of 20); 19 others are not told apart from it."
    assert said(**{"x" * 10_000: (1, 1), "b": (2, 2)}).startswith("x" * 59 + "… is best")
    assert listed(list("abcd")) == "a, b, c and d"
    assert listed(list("abcdef")) == "a, b, c and 3 others"
