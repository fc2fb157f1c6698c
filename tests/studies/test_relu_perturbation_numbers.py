"""What a run of relu-perturbation makes of its parts: its numbers again, example by example."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from advbench.collectors.gates import agreement
from advbench.collectors.influence import top_share
from advbench.collectors.input_spectrum import factor
from advbench.models.mlp import Mlp
from advbench.spec import BadInput
from advbench.studies.relu_perturbation import ReluPerturbation

from small_studies import few, lines, numbers  # isort: skip

STRENGTHS = (0.1, 0.2, 1.0, 2.0)


class Made(ReluPerturbation):
    """Its two trainings are a network as it was drawn, and two cosines."""

    def trained(self, against: bool, setting: Any) -> tuple[nn.Module, float]:
        torch.manual_seed(0)
        model = Mlp(hidden=(16, 16)).build((1, 8, 8), 10)
        with torch.no_grad():
            for weight in model.parameters():
                weight *= 2  # bent enough that lambda_1 differs from image to image
        return model, 0.125 if against else 0.5


def middle(values: Any) -> float:
    """The lower of the two in the middle, as torch has it."""
    return sorted(float(value) for value in values)[(len(values) - 1) // 2]


def test_its_numbers_are_medians_and_correlations_over_examples():
    setting = few(Made, train=60, test=24)
    study = Made(strengths=STRENGTHS, examples=20, step_size=0.05)
    model = study.trained(False, setting)[0].double().requires_grad_(False)
    x, y = setting.data.test.pixels(slice(20)).double(), setting.data.test.labels[:20]
    spectrum, real = factor(model, x, y), study.ascents(model, x, y)
    first = spectrum.values[:, 0]
    study = study.model_copy(update={"cap": 2 * middle(first)})  # the lower half is compared
    kept = (2 * first <= study.cap).nonzero().squeeze(1).tolist()
    assert 5 < len(kept) < 15

    found = study.run(setting)

    steps = [round(strength / 0.05) for strength in STRENGTHS]
    closed = [study.predicted(spectrum, count) for count in steps]
    v = spectrum.vectors(2)

    def along(d: Tensor, i: int, count: int) -> float:
        """The share of d that lies along the first eigenvectors."""
        return float((v[i, :count].flatten(1) @ d[i]).square().sum() / d[i].square().sum())

    curves = {"distance of the closed form": [], "along v1, closed form": [], "along v1, real": []}
    curves |= {"along v1 and v2, real": [], "gates that stay": []}
    for said, went in zip(closed, real, strict=True):
        stay = agreement(model, x, x + went.view_as(x))
        for name, of in (
            ("distance of the closed form", lambda i, a=said, b=went: (a[i] - b[i]).norm() / b[i].norm()),
            ("along v1, closed form", lambda i, a=said: along(a, i, 1)),
            ("along v1, real", lambda i, b=went: along(b, i, 1)),
            ("along v1 and v2, real", lambda i, b=went: along(b, i, 2)),
            ("gates that stay", lambda i, gates=stay: gates[i]),
        ):
            curves[name].append(middle([of(i) for i in kept]))
    assert lines(found) == {"x": [*STRENGTHS]} | {n: pytest.approx(values, rel=1e-6) for n, values in curves.items()}

    clean = study.gradient_lengths(model, x, y)
    louder = [study.gradient_lengths(model, x + d.view_as(x), y) for d in real[:3]]  # up to strength 1
    doubt = 1 - model(x).softmax(1).amax(1)
    weight = [spearmanr(lengths / clean, doubt).statistic for lengths in (louder[0], louder[2])]
    follows = [np.corrcoef(d.norm(dim=1).log(), first.log())[0, 1] for d in real[:3]]
    share, errors = curves["along v1, closed form"], curves["distance of the closed form"]
    expected = {
        "closed_form_error": errors[1],
        "energy_step": min(b / a for a, b in pairwise(share)) - 1,
        "size_correlation": min(follows),
        "unconfident_weight": weight[1],
        "oscillation": 0.375,
        "faint_weight": weight[0],
        "closed_form_step": min(b / a for a, b in pairwise(errors)),
        "standard_cosine": 0.5,
        "adversarial_cosine": 0.125,
        "clean_top_tenth": float(top_share(clean)),
        "attacked_top_tenth": float(top_share(louder[2])),
    }
    told = numbers(found)
    assert told.pop("identity_error") == pytest.approx(
        max(study.hessian_error(model, x[:8], y[:8]), study.layer_error(model, x[:8], real[-1].view_as(x)[:8]))
    )
    assert told == pytest.approx(expected, rel=1e-6)
    assert found.notes[1] == "gradients are weighed at strength 1"


def test_a_cap_that_leaves_nobody_is_told():
    with pytest.raises(BadInput, match="cap: 1e-09 leaves no example to compare; raise it"):
        Made(cap=1e-9, examples=4).run(few(Made, train=20, test=8))


def test_a_strength_is_so_many_steps_and_one_at_least():
    study = ReluPerturbation(step_size=0.3)

    assert [study._steps(strength) for strength in (0.01, 0.3, 0.6, 1.0)] == [1, 1, 2, 3]


def test_training_turns_as_its_successive_gradients_do():
    """One image, one step an epoch: gradient descent along a triangle of rates, by hand."""
    setting = few(ReluPerturbation, train=20)
    study = ReluPerturbation(hidden=(4,), epochs=4, batch=64, lr=0.2, weight_decay=0.01)

    model, cosine = study.trained(False, setting)

    x, y = setting.data.train.pixels(slice(None)), setting.data.train.labels
    start, _ = study.model_copy(update={"lr": 1e-30}).trained(False, setting)
    weights, flats = [weight.detach().clone() for weight in start.parameters()], list[Tensor]()
    for rate in (0.25, 0.75, 0.75, 0.25):
        with torch.no_grad():
            for place, weight in zip(start.parameters(), weights, strict=True):
                place.copy_(weight)
        slopes = torch.autograd.grad(nn.functional.cross_entropy(start(x), y), list(start.parameters()))
        flats.append(torch.cat([slope.flatten() for slope in slopes]))
        weights = [w - 0.2 * rate * (g + 0.01 * w) for w, g in zip(weights, slopes, strict=True)]
    for now, weight in zip(model.parameters(), weights, strict=True):
        torch.testing.assert_close(now.detach(), weight, rtol=1e-4, atol=1e-6)
    turned = [torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in pairwise(flats)]
    assert cosine == pytest.approx(float(sum(turned)) / 3, rel=1e-4)
