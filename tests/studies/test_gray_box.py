"""A gradient that is zero, a detector that keeps clean images; and its claims fail when the experiment is spoilt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from advbench.attacks.pgd import input_gradient
from advbench.data.digits import Digits
from advbench.find import build
from advbench.judge import judge
from advbench.spec import BadInput
from advbench.studies.gray_box import GrayBox, Rounded, Squeezed
from advbench.task import Data

from small_studies import claims_of, setting_of  # isort: skip

FEW = Data(name="digits", test=100)
SMALL: dict[str, Any] = {"eps": 0.15, "epochs": 10, "queries": (50, 100), "sst_epochs": 20, "width": 8, "steps": 15}


class Line(nn.Module):
    """Logits of 4 (mean - 1/2), so that a change of the mean is seen."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height = 4 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([height, -height], 1)


def test_rounding_hides_the_gradient_and_letting_it_through_shows_that_of_the_inside():
    torch.manual_seed(0)
    inside = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 3))
    x, y = torch.rand(5, 1, 4, 4), torch.arange(5) % 3
    rounded = (8 * x).round() / 8

    assert not input_gradient(Rounded(inside, 8), x, y).any()
    through = input_gradient(Rounded(inside, 8, through=True), x, y)
    assert torch.allclose(through, input_gradient(inside, rounded, y), atol=1e-6)


def test_the_detector_refuses_what_coarser_rounding_answers_otherwise():
    """0.375 is three eighths, and a half in quarters: a height of -0.5 and of 0."""
    guarded = Squeezed(Rounded(Line(), 8), 0.1)
    x = torch.full((2, 1, 2, 2), 0.375)
    x[1] = 0.75  # both roundings keep it
    expected = 2 * (torch.sigmoid(torch.tensor(1.0)) - 0.5)

    assert torch.allclose(guarded.moved(x), torch.stack([expected, torch.tensor(0.0)]), atol=1e-6)
    assert (guarded.reject(x) > 0).tolist() == [True, False]


def test_it_keeps_nineteen_of_twenty_clean_validation_images():
    study, setting = GrayBox(epochs=3), setting_of(GrayBox)
    held = setting.data.validation
    x = held.pixels(slice(None))

    guarded = study.guarded(study.target(setting), setting)

    refused = int(judge(guarded, x, held.labels).refused.sum())
    assert refused == pytest.approx(len(held) / 20, abs=1)


def test_every_number_that_is_claimed_is_measured():
    study = GrayBox(epochs=1, queries=(5, 10), sst_epochs=1, width=1, steps=1)
    found = study.run(setting_of(GrayBox, data=FEW))

    assert {claim.name for claim in GrayBox.claims} <= found.values.keys()
    assert {len(values) for values in found.arrays.values()} == {2}


class Shown(GrayBox):
    """A white box that sees through the rounding."""

    def white_box(self, target: nn.Module, x, y, threat, seed):
        assert isinstance(target, Rounded)
        return super().white_box(Rounded(target.inside, self.levels, through=True), x, y, threat, seed)


class Still(GrayBox):
    """Distillation under the name of the stochastic substitute."""

    def noise(self):
        return 0.0


class Wary(GrayBox):
    """A detector that refuses everything, and a substitute that is told probabilities."""

    def guarded(self, target, setting):
        return Squeezed(target, -1.0)

    def answers(self, target):
        return nn.Sequential(target, nn.Softmax(1))


@pytest.mark.slow
def test_a_white_box_that_sees_through_the_rounding_fails():
    assert claims_of(Shown(**SMALL), data=FEW)["masked"] == "does not hold"


@pytest.mark.slow
def test_no_noise_fails():
    held = claims_of(Still(**SMALL), seeds=3, data=FEW)

    assert held["noise_gain"] == "does not hold"
    assert held["few_gain"] == "does not hold"
    # The gradient is hidden all the same.
    assert held["masked"] != "does not hold"


@pytest.mark.slow
def test_probabilities_and_a_detector_that_refuses_everything_fail():
    held = claims_of(Wary(**SMALL), seeds=3, data=FEW)

    assert held["past_detector"] == "does not hold"
    assert held["independent_gain"] == "does not hold"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"queries": [0, 10]}, "queries should hold numbers of images that rise"),
        ({"queries": [10]}, "queries"),
        ({"sst_epochs": 0}, "sst_epochs"),
        ({"levels": 1}, "levels"),
        ({"norm": "L0"}, "norm"),
    ],
)
def test_sizes_of_zero_and_unknown_norms_are_refused(fields: dict[str, object], said: str):
    with pytest.raises(BadInput, match=said) as told:
        build(GrayBox, fields, "study")

    assert len(told.value.lines) == 1


def test_more_queries_than_test_images_are_refused_while_planning_and_later():
    study = GrayBox(queries=(100, 361))

    with pytest.raises(BadInput, match="at most the 360 test images, not 361"):
        study.fit(Digits().load(None))  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="at most the 100 test images"):
        study.run(setting_of(GrayBox, data=FEW))
