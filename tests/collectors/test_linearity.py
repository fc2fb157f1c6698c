"""Linear logits are linear; a known bend is measured as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.pgd import PGD, input_gradient
from advbench.collectors.base import Scene
from advbench.collectors.linearity import Linearity, cosine
from advbench.threat import Threat


class Square(nn.Module):
    """Logits 0 and -40 - 10 |x - 1/2|^2, so that the loss of label 1 is that height to e^-40: a pure quadratic."""

    def forward(self, x: Tensor) -> Tensor:
        height = -40 - 10 * (x - 0.5).flatten(1).square().sum(1)
        return torch.stack([torch.zeros_like(height), height], 1)


def test_a_quadratic_bends_as_it_is_known_to():
    x = 0.4 + 0.2 * torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scene = Scene(Square(), x, torch.ones(6).long(), Threat("L2", 0.1), 2, attack=PGD(steps=8))

    found = Linearity().collect(scene)

    assert torch.allclose(found.arrays["error"], torch.full((6,), 10 * 0.1**2, dtype=torch.float64), atol=1e-9)
    rise = (Square()(scene.adversarial) - Square()(x)).abs().sum(1)
    assert torch.allclose(found.arrays["lipschitz"], rise / 0.1, rtol=1e-9)


def test_a_model_that_never_changes_its_mind_is_linear_and_changes_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Threshold(9.0, 0.0), nn.Linear(4, 2)).requires_grad_(False)
    scene = Scene(model, torch.rand(3, 1, 2, 2), torch.zeros(3).long(), Threat("L2", 0.1), 2, attack=PGD(steps=1))

    found = Linearity().collect(scene)

    assert found.arrays["lipschitz"].tolist() == found.arrays["error"].tolist() == [0, 0, 0]


def test_of_a_linear_model_with_two_classes_all_gradients_are_parallel(logistic):
    model, x, y = logistic(0)
    scene = Scene(model.requires_grad_(False), x, y, Threat("Linf", 0.1), 2, attack=PGD(steps=8))

    found = Linearity().collect(scene)

    assert found.values["alignment_median"].value == pytest.approx(1)
    # |(-1/2, 1/2)|_1 times |<w, delta>| = eps |w|_1.
    assert found.values["lipschitz_median"].value == pytest.approx(float(model.w.norm(p=1)))


def test_alignment_withstands_a_saturated_model_s_gradients():
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0)).unbind()

    assert torch.allclose(cosine(1e-30 * a, b), cosine(a, b), atol=1e-6)
    assert (cosine(0 * a, b) == 0).all()


def test_the_alignment_is_that_of_two_gradients_and_batches_change_nothing(scene):
    whole, small = (Linearity().collect(scene(20, batch=batch)) for batch in (256, 7))
    looked = scene(20)
    near = looked.threat.random_start(looked.x, looked.noise("linearity", torch.arange(20)))
    here, there = (input_gradient(looked.model, at, looked.y).flatten(1) for at in (looked.x, near))

    assert torch.allclose(whole.arrays["alignment"], torch.cosine_similarity(here, there), atol=1e-9)
    for name, array in whole.arrays.items():
        assert torch.allclose(small.arrays[name], array, atol=1e-9), name
