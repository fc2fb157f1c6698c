"""Exact scores of a second tiny job, for what the first one (test_run.py) does not reach.

L2, Adam, a cosine schedule, a convnet, the random start clipped to the box. If this fails, the engine's results
changed: raise PROTOCOL or EVALUATION_PROTOCOL, and run the committed board anew.
"""

from __future__ import annotations

from pathlib import Path

import torch

from advbench.plan import EVALUATION_PROTOCOL, PROTOCOL
from advbench.resolve import resolve
from advbench.run import run_job

TASK = """\
version = 1
title = "Golden, part two"
[data]
name = "digits"
train = 400
validation = 60
test = 60
[model]
name = "digits-cnn"
[threat]
norm = "L2"
eps = "3/5"
[training]
epochs = 3
batch = 40
optimizer = "adam"
lr = 3e-3
weight_decay = 0.0
schedule = "cosine"
seeds = [0]
precision = "fp32"
[evaluation]
attacks = ["fgsm", { name = "pgd", steps = 10, restarts = 2 }]
block = 40
[[defense]]
name = "fast-at"
start_in_box = true
"""


def test_the_golden_scores_of_the_second_job(tmp_path: Path):
    (tmp_path / "golden.toml").write_text(TASK, encoding="utf-8")
    [item] = resolve(tmp_path / "golden.toml", tmp_path, {}).items

    scores = run_job(item, tmp_path / "results", tmp_path, torch.device("cpu"), lambda *_: None).scores

    assert (PROTOCOL, EVALUATION_PROTOCOL) == (2, 3)
    assert scores
    counts = {name: round(60 * share) for name, share in {"clean": scores.clean.accuracy, **scores.attacks}.items()}
    assert counts == {"clean": 48, "fgsm": 36, "pgd": 35}
