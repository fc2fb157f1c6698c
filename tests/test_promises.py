"""Both halves of what is promised of a rerun: equal bytes here, and elsewhere no more than other seeds change."""

from __future__ import annotations

import hashlib
import re
import statistics
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import t

from advbench.plan import run_folder
from advbench.record import load
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.stable import stable

TASK = """\
version = 1
title = "Digits, shortly"
data = { name = "digits", train = 400, validation = 50, test = 200 }
model = { name = "digits-cnn" }
threat = { norm = "Linf", eps = "1/10" }
training = { epochs = 2, batch = 32, seeds = 5, precision = "fp32" }
evaluation = { attacks = ["fgsm"], alone = 8 }
resources = { threads = %d }
[[defense]]
name = "fast-at"
"""


@pytest.mark.slow
def test_the_same_job_in_two_processes_leaves_equal_bytes(tmp_path: Path, tiny, command):
    task = tiny(tmp_path, "t", ('attacks = ["fgsm"]', 'attacks = ["fgsm", "pgd"]\nblock = 16\ncurve = ["1/20"]'))
    for results in ("one", "two"):
        done = command(tmp_path, "run", task, "--data-root", "data", "--device", "cpu", "--results", results)
        assert done.returncode == 0, done.stderr
    one, two = (tmp_path / results / "records" / "t" / "standard-s0" for results in ("one", "two"))

    assert stable(load(one / "record.json")) == stable(load(two / "record.json"))
    names = sorted(path.name for path in one.iterdir())
    assert names == ["adversarial.safetensors", "examples.parquet", "record.json"]
    weights = [run_folder(tmp_path / results, "t/standard-s0") for results in ("one", "two")]
    for name in names[:2]:
        assert (one / name).read_bytes() == (two / name).read_bytes()
    for name in ("best.safetensors", "last.safetensors"):
        assert (weights[0] / name).read_bytes() == (weights[1] / name).read_bytes()


@pytest.mark.slow
def test_another_number_of_threads_changes_no_more_than_other_seeds(tmp_path: Path):
    found: dict[int, list[tuple[float, float]]] = {}
    digests: dict[int, list[str]] = {}
    for threads in (1, 2):
        path = tmp_path / f"t{threads}.toml"
        path.write_text(TASK % threads, encoding="utf-8")
        for item in resolve(path, tmp_path, {}).items:
            record = attempt(item, tmp_path, tmp_path, torch.device("cpu"), lambda *_: None)
            assert record.scores is not None, record.error
            assert record.scores.robust is not None
            found.setdefault(threads, []).append((record.scores.clean.accuracy, record.scores.robust.accuracy))
            content = b"".join(
                value.numpy().tobytes()
                for _, value in sorted(load_file(run_folder(tmp_path, item.path) / "last.safetensors").items())
            )
            digests.setdefault(threads, []).append(hashlib.sha256(content).hexdigest())

    assert set(digests[1]).isdisjoint(digests[2])  # or there would be nothing to compare
    for score in range(2):
        one, two = ([seed[score] for seed in found[threads]] for threads in (1, 2))
        # Student's interval of a difference of means, over five seeds each.
        spread = ((statistics.variance(one) + statistics.variance(two)) / 5) ** 0.5
        assert abs(statistics.mean(one) - statistics.mean(two)) <= t.ppf(0.975, 8) * spread


def test_the_page_names_tests_that_exist(repo: Path):
    page = (repo / "docs" / "promises.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)

    assert len(named) > 30
    for file, name in named:
        assert f"def {name}(" in (repo / file).read_text(encoding="utf-8"), f"{file}::{name}"
    for file in re.findall(r"`(tests/[\w/]+\.py)`", page):
        assert (repo / file).exists(), file
