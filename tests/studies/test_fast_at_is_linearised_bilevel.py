"""Its closed form against an optimiser, its gradients against finite differences; and its claims fail when spoilt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.optimize import minimize

from advbench.find import build
from advbench.losses import cross_entropy
from advbench.spec import BadInput
from advbench.studies.fast_at_is_linearised_bilevel import FastAtIsLinearisedBilevel, linear_answer
from advbench.task import Data
from advbench.threat import Threat
from advbench.tutor import baseline

from small_studies import claims_of, setting_of  # isort: skip

FEW = Data(name="digits", train=300)
SMALL: dict[str, Any] = {"epochs": 12, "batch": 32, "eps": (0.2, 0.3)}
THREAT = Threat("Linf", 0.15)


def scene():
    """A smooth network, images, labels, and points z of their balls."""
    source = torch.Generator().manual_seed(1)
    x = torch.rand(6, 1, 6, 6, generator=source, dtype=torch.float64)
    z = (x + 0.15 * (2 * torch.rand(x.shape, generator=source, dtype=torch.float64) - 1)).clamp(0, 1)
    return FastAtIsLinearisedBilevel().smooth(3), x, torch.arange(6), z


@pytest.mark.parametrize("signed", [True, False])
def test_the_closed_form_minimises_the_linearised_problem(signed: bool):
    """<h, d - z> + ||d - z||^2 / (2 a) within bounds, by L-BFGS-B; h the gradient of minus the cross-entropy."""
    model, x, y, z = scene()
    at, step = z.clone().requires_grad_(), 0.7
    h = -torch.autograd.grad(cross_entropy(model(at), y).sum(), at)[0]
    h = h.sign() if signed else h

    def value(d):
        away = d - z.flatten().numpy()
        return h.flatten().numpy() @ away + away @ away / (2 * step), h.flatten().numpy() + away / step

    low, high = (x - 0.15).clamp_min(0).flatten().numpy(), (x + 0.15).clamp_max(1).flatten().numpy()
    done = minimize(
        value, z.flatten().numpy(), jac=True, bounds=list(zip(low, high, strict=True)), method="L-BFGS-B", tol=1e-14
    )

    found = linear_answer(model, x, y, THREAT, z, step, signed=signed).detach().flatten().numpy()
    assert np.abs(found - done.x).max() < 1e-7


def test_the_gradient_through_the_attack_is_that_of_finite_differences():
    """Along a random direction; with a sign in the attack the same holds of the plain gradient alone."""
    model, x, y, z = scene()
    weights = list(model.parameters())
    torch.manual_seed(0)
    way = [torch.randn_like(weight) for weight in weights]

    def value(signed: bool) -> torch.Tensor:
        return cross_entropy(model(linear_answer(model, x, y, THREAT, z, 0.02, signed=signed)), y).mean()

    def moved(by: float, signed: bool) -> float:
        with torch.no_grad():
            for weight, d in zip(weights, way, strict=True):
                weight.add_(by * d)
        found = value(signed).item()
        with torch.no_grad():
            for weight, d in zip(weights, way, strict=True):
                weight.sub_(by * d)
        return found

    slopes = {}
    for signed in (True, False):
        slopes[signed] = sum(
            float((g * d).sum()) for g, d in zip(torch.autograd.grad(value(signed), weights), way, strict=True)
        )
        numeric = (moved(1e-6, signed) - moved(-1e-6, signed)) / 2e-6
        assert numeric == pytest.approx(slopes[signed], rel=1e-5)
    assert slopes[True] != pytest.approx(slopes[False], rel=1e-2)


def test_the_implicit_gradient_counts_in_the_comparison_and_fast_at_has_none():
    study = FastAtIsLinearisedBilevel()
    setting = setting_of(FastAtIsLinearisedBilevel)

    assert study._error("fast-bat", setting)[1] > 0.03
    assert study._error("fast-at", setting)[1] == 0


@pytest.mark.parametrize("eps", [(0.1, 0.1), (0.2, 0.1), (0.0, 0.1), (0.1, 1.1)])
def test_radii_that_do_not_rise_from_above_0_to_at_most_1_are_refused(eps: tuple[float, ...]):
    with pytest.raises(ValidationError, match="eps should hold radii that rise, above 0 and at most 1"):
        FastAtIsLinearisedBilevel(eps=eps)
    assert FastAtIsLinearisedBilevel(eps=(0.1, 1.0)).eps == (0.1, 1.0)


def test_passes_are_equal():
    """(3 + 4) * 24 = (2 + 2) * 42."""
    study = FastAtIsLinearisedBilevel(epochs=24)

    assert study.cheaper(*study.defenses()) == 42


def test_every_number_that_is_claimed_is_measured():
    found = FastAtIsLinearisedBilevel(epochs=1).run(setting_of(FastAtIsLinearisedBilevel, data=FEW))

    assert {claim.name for claim in FastAtIsLinearisedBilevel.claims} <= found.values.keys()
    assert {len(values) for values in found.arrays.values()} == {4}


class NoImplicit(FastAtIsLinearisedBilevel):
    """Fast-BAT whose attack is held fixed, fast AT whose start may leave the box."""

    def descended(self, name, state, x, y):
        if name == "fast-bat":
            return baseline("fast-bat", step_size=self.exact_step, ig_scale=0.0).loss(state, x, y)
        return baseline("fast-at", step_size=self.exact_step / state.threat.eps).loss(state, x, y)


class CleanBat(FastAtIsLinearisedBilevel):
    """Clean training under the name of Fast-BAT."""

    def defenses(self):
        class Impostor(type(baseline("standard"))):
            name = "fast-bat"

        return baseline("fast-at", start_in_box=True), Impostor()


class BlindJudge(FastAtIsLinearisedBilevel):
    """FGSM under the name of PGD: a judge that sees no collapse."""

    def judged(self, model, threat, setting):
        left = super().judged(model, threat, setting)
        return left | {"PGD-20": left["FGSM"]}


def test_an_attack_that_is_held_fixed_and_a_start_outside_fail():
    held = claims_of(NoImplicit(epochs=1), data=FEW)

    assert held["fast_bat_error"] == "does not hold"
    assert held["fast_at_error"] == "does not hold"


def test_clean_training_under_the_name_of_fast_bat_fails():
    held = claims_of(CleanBat(**SMALL), seeds=3, data=FEW)

    assert held["gain_at_smallest"] == "does not hold"
    assert held["gain_at_largest"] == "does not hold"


def test_a_judge_that_sees_no_collapse_fails():
    assert claims_of(BlindJudge(**SMALL), data=FEW)["collapse_at_largest"] == "does not hold"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"norm": "L2"}, "norm: should be 'Linf'"),
        ({"eps": [0.2, 0.1]}, "eps should hold radii that rise"),
        ({"eps": [0.0, 0.1]}, "eps should hold radii that rise"),
        ({"exact_examples": 0}, "exact_examples"),
    ],
)
def test_sizes_of_zero_and_unknown_norms_are_refused(fields: dict[str, object], said: str):
    with pytest.raises(BadInput, match=said) as told:
        build(FastAtIsLinearisedBilevel, fields, "study")

    assert len(told.value.lines) == 1
