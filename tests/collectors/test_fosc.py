"""The criterion along the attack: never negative, zero where a linear model's attack has converged."""

from __future__ import annotations

import pytest
import torch

from advbench.attacks.pgd import ascend, input_gradient
from advbench.collectors.base import Scene
from advbench.collectors.fosc import Fosc
from advbench.threat import Threat


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_on_a_linear_model_it_goes_from_all_of_the_slope_to_zero(logistic, norm):
    model, x, y = logistic(0)
    scene = Scene(model.requires_grad_(False), x, y, Threat(norm, 0.1), 2)

    found = Fosc(steps=4).collect(scene)

    slope = input_gradient(model, x, y)
    assert torch.allclose(found.arrays["fosc"][:, 0], 0.1 * scene.threat.dual_norm(slope), atol=1e-12)
    assert torch.allclose(found.arrays["fosc_relative"][:, 0], torch.ones(24, dtype=torch.float64))
    assert found.arrays["fosc"][:, -1].abs().max() < 1e-6
    assert found.arrays["fosc_box"][:, -1].abs().max() < 1e-6
    assert found.values["fosc_median"].value == pytest.approx(0, abs=1e-6)
    assert found.values["fosc_relative_median"].value == pytest.approx(0, abs=1e-5)
    assert found.values["fosc_start_mean"].value == pytest.approx(0.1 * float(scene.threat.dual_norm(slope).mean()))
    assert found.notes == ("24 examples, 4 steps from the clean image",)


def test_a_model_that_never_changes_its_mind_is_at_a_maximum_everywhere():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Threshold(9.0, 0.0), torch.nn.Linear(4, 2))
    scene = Scene(model.requires_grad_(False), torch.rand(3, 1, 2, 2), torch.zeros(3).long(), Threat("L2", 0.1), 2)

    found = Fosc(steps=2, random_start=True).collect(scene)

    assert all((array == 0).all() for array in found.arrays.values())
    assert found.notes == ("3 examples, 2 steps from a random point",)


def test_it_is_a_gap_and_the_box_only_lowers_it(scene):
    looked = scene(60)

    found = Fosc(random_start=True).collect(looked)

    paper, box = found.arrays["fosc"], found.arrays["fosc_box"]
    assert paper.shape == (60, 21)
    assert box.min() > -1e-9
    assert (box <= paper + 1e-12).all()
    # White and black pixels are the case that the second criterion is for.
    assert box[:, -1].median() < 0.5 * paper[:, -1].median()
    assert found.values["fosc_box_median"].value == pytest.approx(float(box[:, -1].quantile(0.5)))


def test_each_step_s_number_is_the_threat_s_own(scene):
    looked = scene(10)
    x_adv = ascend(looked.model, looked.x, looked.y, looked.threat, start=looked.x, steps=3, step_size=0.025)

    found = Fosc(steps=5).collect(looked)

    expected = looked.threat.fosc(x_adv, looked.x, input_gradient(looked.model, x_adv, looked.y))
    assert torch.allclose(found.arrays["fosc"][:, 3], expected, atol=1e-12)


def test_batches_change_nothing(scene):
    whole, small = (Fosc(random_start=True).collect(scene(30, batch=batch)) for batch in (256, 7))

    assert torch.allclose(whole.arrays["fosc"], small.arrays["fosc"], atol=1e-12)
