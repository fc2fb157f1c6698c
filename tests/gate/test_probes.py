"""New flags, failed jobs, and the same job with another outcome."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advbench.compare.read import read
from advbench.gate.judge import Asked, check
from advbench.gate.probes import drift, flags
from advbench.record import Flag, load, save

STANDS = np.arange(20) % 4 > 0
DEAD, MASKED = Flag(name="dead", message="one class"), Flag(name="zero-gradient", message="masked")


def groups(tmp_path: Path, lay_record, old: dict[str, Any], new: dict[str, Any], stands: np.ndarray = STANDS):
    lay_record(tmp_path / "old", "a", 0, STANDS, **old)
    lay_record(tmp_path / "new", "a", 0, stands, **new)
    return read(tmp_path / "old")[0], read(tmp_path / "new")[0]


@pytest.mark.parametrize(
    ("old", "new", "verdict", "said"),
    [
        ((), (), "PASS", "none is new"),
        ((DEAD,), (DEAD,), "PASS", "none is new; the old result has them too: dead"),
        ((MASKED, DEAD), (), "PASS", "none is new; the old result has them too: dead, zero-gradient"),
        ((), (DEAD,), "FAIL", "new: seed 0: dead (one class)"),
        ((DEAD,), (MASKED, DEAD), "FAIL", "new: seed 0: zero-gradient (masked)"),
    ],
)
def test_only_a_new_flag_fails(tmp_path: Path, lay_record, old, new, verdict, said):
    limit = flags(*groups(tmp_path, lay_record, {"flags": old}, {"flags": new}))

    assert (limit.verdict, limit.said) == (verdict, said)


def stopped(folder: Path) -> None:
    """The record as a stopped evaluation leaves it."""
    record = load(folder / "record.json")
    assert record.scores
    flag = Flag(name="stopped", message="", evidence={})
    scores = record.scores.model_copy(update={"robust": None})
    beside = {name: (folder / name).read_bytes() for name in record.files}
    save(record.model_copy(update={"scores": scores, "flags": (flag,)}), folder, beside)


def test_a_gradient_that_is_masked_now_fails_rather_than_compares_with_nothing(tmp_path: Path, lay_record):
    stands = np.ones(200, bool)
    for seed in range(3):
        lay_record(tmp_path / "old", "a", seed, stands)
        stopped(lay_record(tmp_path / "new", "a", seed, stands))

    [judged] = check(tmp_path / "new", tmp_path / "old", Asked(0.01, 0.01))

    assert judged.verdict == "FAIL"
    assert any("robust accuracy was not judged" in text for text in judged.remarks)
    assert "robust accuracy" not in {limit.name for limit in judged.limits}


def test_a_job_that_fails_now_is_new(tmp_path: Path, lay_record):
    old, new = groups(tmp_path, lay_record, {}, {"status": "failed", "error": "x\nRuntimeError: loss"})

    assert flags(old, new).verdict == "FAIL"
    assert flags(old, new).said == "new: seed 0: FAILED (RuntimeError: loss)"


def test_one_old_failure_excuses_no_other_seed_s(tmp_path: Path, lay_record):
    for seed in range(3):
        lay_record(tmp_path / "old", "a", seed, STANDS, **({"status": "failed", "error": "x"} if seed == 0 else {}))
        lay_record(tmp_path / "new", "a", seed, STANDS, **({"status": "failed", "error": "y"} if seed < 2 else {}))

    limit = flags(read(tmp_path / "old")[0], read(tmp_path / "new")[0])

    assert (limit.verdict, limit.said) == ("FAIL", "new: seed 1: FAILED (y)")


def test_where_every_new_job_failed_nothing_passes(tmp_path: Path, lay_record):
    for seed in range(2):
        lay_record(tmp_path / "old", "a", seed, STANDS, **({"status": "failed", "error": "x"} if seed == 0 else {}))
    lay_record(tmp_path / "new", "a", 0, STANDS, status="failed", error="y")

    [judged] = check(tmp_path / "new", tmp_path / "old", Asked(0.01, 0.01))

    assert judged.verdict == "FAIL"
    assert [limit.said for limit in judged.limits] == ["new: seed 0: FAILED (y)"]


OTHER = STANDS.copy()
OTHER[:6] = ~OTHER[:6]


@pytest.mark.parametrize(
    ("stands", "provenance", "verdict", "said"),
    [
        (STANDS, {}, "PASS", "with the same outcome"),
        (OTHER, {}, "FAIL", "on the same build came out otherwise: seed 0: 6 verdicts"),
        (STANDS, {"weights_sha256": {"best": "x"}}, "FAIL", "seed 0: 0 verdicts, and other weights"),
        (OTHER, {"torch": "2.16.0"}, "PASS", "the software changed, .*6 verdicts .torch 2.15.0 there, 2.16.0 here"),
        (OTHER, {"deterministic": False}, "PASS", "accelerators sum in any order"),
    ],
)
def test_drift_is_told_apart_from_seeds(tmp_path: Path, lay_record, stands, provenance, verdict, said):
    limit = drift(*groups(tmp_path, lay_record, {}, {"provenance": provenance}, stands))

    assert limit
    assert limit.verdict == verdict
    assert re.search(said, limit.said)


def test_other_jobs_do_not_drift(tmp_path: Path, lay_record):
    assert drift(*groups(tmp_path, lay_record, {}, {"id": "another"}, OTHER)) is None
