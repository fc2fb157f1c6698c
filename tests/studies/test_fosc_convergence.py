"""Its criterion against corners of the ball and linear models; and its claims fail when the experiment is spoilt."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from advbench.attacks.pgd import input_gradient
from advbench.defense import Defense
from advbench.find import build
from advbench.spec import BadInput
from advbench.studies.fosc_convergence import FoscConvergence, Staged, adversary
from advbench.task import Data
from advbench.threat import Threat

from small_studies import claims_of, setting_of  # isort: skip

FEW = Data(name="digits", train=256)
SMALL: dict[str, Any] = {"epochs": 10, "batch": 32, "strong": 5}


def test_the_criterion_is_the_best_corner_of_the_ball():
    torch.manual_seed(0)
    x, grad = torch.rand(5, 4), torch.randn(5, 4)
    threat = Threat("Linf", 0.2)
    x_adv = x + 0.2 * (2 * torch.rand(5, 4) - 1)

    corners = torch.stack([x + 0.2 * torch.tensor(signs) for signs in product((-1.0, 1.0), repeat=4)])
    best = ((corners - x_adv) * grad).sum(2).amax(0)

    assert torch.allclose(FoscConvergence().criterion(threat, x_adv, x, grad), best, atol=1e-6)


def test_it_is_zero_where_a_linear_model_is_at_its_worst_and_never_below():
    """eps sign(g) from the image, four steps of a quarter; pixels far from 0 and 1."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    x, y, threat = 0.4 + 0.2 * torch.rand(20, 1, 4, 4), torch.arange(20) % 2, Threat("Linf", 0.15)
    study = FoscConvergence()

    def gap(steps: int) -> torch.Tensor:
        x_adv = adversary(model, x, y, threat, steps, 0.25)
        return study.criterion(threat, x_adv, x, input_gradient(model, x_adv, y))

    assert float(gap(4).abs().max()) < 1e-6
    for steps in (1, 2, 3):
        assert float(gap(steps).min()) > 1e-3


def test_every_number_that_is_claimed_is_measured_and_its_lines_are_of_the_epochs():
    found = FoscConvergence(epochs=2, strong=2).run(setting_of(FoscConvergence))

    assert {claim.name for claim in FoscConvergence.claims} <= found.values.keys()
    assert {len(values) for values in found.arrays.values()} == {2}
    assert all(float(line.min()) >= -1e-6 for line in found.arrays.values())


class Swapped(FoscConvergence):
    """Strong early under the name of strong late."""

    def courses(self):
        made = super().courses()
        return made | {"strong late": made["strong early"], "strong early": made["strong late"]}


class Clean(Staged):
    """An adversary that leaves the image where it is."""

    def loss(self, state, x, y):
        return state.cross_entropy(state.model(x), y)


class Unmoved(FoscConvergence):
    """Clean training in the place of all."""

    def courses(self) -> dict[str, Defense]:
        return {name: Clean(**course.plain()) for name, course in super().courses().items()}


class WrongSign(FoscConvergence):
    """What the linearised loss could lose."""

    def criterion(self, threat, x_adv, x, grad):
        return -super().criterion(threat, x_adv, x, grad)


class Noise(FoscConvergence):
    """Numbers that know nothing in the place of FOSC."""

    def criterion(self, threat, x_adv, x, grad):
        return torch.rand(())


@pytest.mark.slow
def test_weak_adversaries_at_the_end_fail():
    held = claims_of(Swapped(**SMALL), seeds=3, data=FEW)

    assert held["late_over_early"] == "does not hold"
    assert held["late_beside_throughout"] == "does not hold"
    # What is not swapped is not refuted.
    assert held["fosc_correlation"] != "does not hold"


def test_clean_training_in_the_place_of_adversarial_fails():
    assert claims_of(Unmoved(**SMALL), seeds=2, data=FEW)["late_over_early"] == "does not hold"


@pytest.mark.slow
def test_the_wrong_sign_fails():
    held = claims_of(WrongSign(**SMALL), seeds=3, data=FEW)

    assert held["late_fosc_correlation"] == "does not hold"
    assert held["fosc_correlation"] == "does not hold"


@pytest.mark.slow
def test_noise_in_the_place_of_fosc_fails():
    sizes = tuple(0.02 * 1.4**k for k in range(14))

    held = claims_of(Noise(**SMALL, step_sizes=sizes), seeds=3, data=FEW)

    assert held["fosc_over_loss"] == "does not hold"
    assert held["late_fosc_correlation"] != "holds"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"strong": 0}, "strong"),
        ({"norm": "L1"}, "norm: should be 'Linf' or 'L2'"),
        ({"eps": 0}, "eps"),
        ({"step_sizes": [0.1]}, "step_sizes"),
        ({"model": "resnet18"}, "model"),
    ],
)
def test_sizes_of_zero_and_unknown_norms_are_refused(fields: dict[str, object], said: str):
    with pytest.raises(BadInput, match=said) as told:
        build(FoscConvergence, fields, "study")

    assert len(told.value.lines) == 1
