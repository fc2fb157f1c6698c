"""What a run of logistic-sharpness makes of its parts: curvatures and rises again, by autograd and by numpy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.autograd.functional import hessian
from torch.nn.functional import softplus

from advbench.studies.logistic_sharpness import LogisticSharpness, adversarial_loss
from advbench.task import Data

from small_studies import numbers, setting_of  # isort: skip

EPS = (0.0, 0.25, 0.5, 1.0)
ROWS = Data.model_validate({"name": "digits", "classes": (0, 1), "train": 50})


class Made(LogisticSharpness):
    """Its minima are places that are made up."""

    def minimum(self, x: Tensor, y: Tensor, eps: float) -> Tensor:
        draws = torch.Generator().manual_seed(0)
        return (0.1 + eps) * torch.randn(x.shape[1], dtype=x.dtype, generator=draws)


def top(matrix: Any) -> float:
    return float(np.linalg.eigvalsh(matrix.numpy())[-1])


def test_its_numbers_are_curvatures_and_rises():
    setting, study = setting_of(Made, 0, ROWS), Made(eps=EPS, directions=3, share=0.5)
    x, y = study._draw(setting)
    assert x.shape == (25, 64)
    assert set(y.tolist()) == {-1, 1}

    found = study.run(setting)

    whole, fixed, clean, rises = list[float](), list[float](), list[float](), list[float]()
    for eps in EPS:
        w = study.minimum(x, y, eps)
        away = eps * w / w.norm()  # what the attack takes from the images of class 1, where it no longer answers
        whole.append(top(hessian(lambda at, e=eps: adversarial_loss(at, x, y, e), w)))
        fixed.append(top(hessian(lambda at, d=away: softplus(-y * (x @ at) + at @ d).mean(), w)))
        clean.append(top(hessian(lambda at: softplus(-y * (x @ at)).mean(), w)))
        source, each = setting.generator("directions"), list[float]()
        for _ in range(3):
            d = torch.randn(64, generator=source, dtype=w.dtype)
            d = d / d.norm() * w.norm()
            each += [float(adversarial_loss(at, x, y, eps) - adversarial_loss(w, x, y, eps)) for at in (w + d, w - d)]
        rises.append(float(np.mean(each)))
    for name, values in (("adversarial", whole), ("attack held fixed", fixed), ("clean", clean), ("x", EPS)):
        assert found.arrays[name].tolist() == pytest.approx(values, rel=1e-9)
    slope = np.polyfit(np.log(EPS[1:]), np.log(whole[1:]), 1)[0]
    told = numbers(found)
    assert told.pop("hessian_error") < 1e-12
    assert told == pytest.approx(
        {
            "sharpness_step": min(b / a for a, b in pairwise(whole)),
            "slope_from_one": abs(slope - 1),
            "rise_correlation": spearmanr(EPS, rises).statistic,
            "clean_step": min(b / a for a, b in pairwise(clean)),
            "slope": slope,
            "largest": whole[-1],
        },
        rel=1e-9,
    )
    assert found.notes == ("25 examples a seed",)
    assert study._rise(study.minimum(x, y, 1.0), x, y, 1.0, setting) == pytest.approx(rises[-1], rel=1e-12)
