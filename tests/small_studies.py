"""A study's setting and verdicts, for tests: its own data, few seeds, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from advbench.collectors.base import Measures
from advbench.data.subsets import choose
from advbench.find import read_data
from advbench.seeds import derive, own_streams
from advbench.stats.claims import judged
from advbench.study import Setting, Study, declared
from advbench.task import Data


def setting_of(kind: type[Study], seed: int = 0, data: Data | None = None) -> Setting:
    """What a run of the study meets with its own data, or with `data`, on the CPU."""
    asked = data or kind.data
    if asked is None:
        return Setting(seed, torch.device("cpu"))
    dataset = read_data(asked, Path())
    return Setting(seed, torch.device("cpu"), choose(dataset, asked, "cpu"), dataset.classes)


def claims_of(study: Study, seeds: int = 2, data: Data | None = None) -> dict[str, str]:
    """The verdict on each claim after so many seeds."""
    runs = []
    for seed in range(seeds):
        with own_streams(derive(seed, "study", study.name)):
            runs.append(declared(study, study.run(setting_of(type(study), seed, data))))
    return {claim.name: judged(claim, [run[i].found for run in runs]).verdict for i, claim in enumerate(study.claims)}


def numbers(found: Measures) -> dict[str, Any]:
    """The value of each measure, by its name."""
    return {name: one.value for name, one in found.values.items()}


def lines(found: Measures) -> dict[str, list[float]]:
    """The curves."""
    return {name: values.tolist() for name, values in found.arrays.items()}


def few(kind: type[Study], **sizes: int) -> Setting:
    """A setting of so many digits."""
    return setting_of(kind, 0, Data.model_validate({"name": "digits", **sizes}))


def about(values: Any) -> Any:
    """Equal but for rounding in float32."""
    return pytest.approx(values, rel=1e-6, abs=1e-12)
