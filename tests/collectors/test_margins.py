"""Distances to the boundary, exact where the model is linear."""

from __future__ import annotations

import pytest
import torch

from advbench.attacks.pgd import PGD
from advbench.collectors.base import Scene
from advbench.collectors.margins import Margins
from advbench.threat import Norm, Threat


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_linear_model_s_distance_is_the_way_to_its_plane(logistic, norm: Norm):
    model, x, y = logistic(0)
    threat = Threat(norm, 0.1)
    scene = Scene(model.requires_grad_(False), x, y, threat, 2, attack=PGD(steps=8, random_start=False))

    found = Margins().collect(scene)

    signed = (2.0 * y - 1) * (x.flatten(1) @ model.w)
    assert torch.allclose(found.arrays["clean_margin"], signed, atol=1e-12)
    order = {"Linf": 1, "L2": 2, "L1": torch.inf}[norm]
    assert torch.allclose(found.arrays["clean_distance"], signed / model.w.norm(p=order), atol=1e-12)
    # The attack goes straight for the plane, all of eps; in L1 it may stop short of that by a part of a step.
    way = found.arrays["clean_distance"] - found.arrays["adversarial_distance"]
    assert torch.allclose(way, torch.full_like(way, 0.1), atol=1e-9 if norm != "L1" else 0.03)


def test_medians_are_the_arrays_and_batches_change_nothing(scene):
    whole, small = (Margins().collect(scene(30, batch=batch)) for batch in (256, 7))

    for name, array in whole.arrays.items():
        assert torch.allclose(small.arrays[name], array, atol=1e-9)
        assert whole.values[f"{name}_median"].value == pytest.approx(float(array.quantile(0.5)))
    assert (whole.arrays["adversarial_margin"] < whole.arrays["clean_margin"]).all()
