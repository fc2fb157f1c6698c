"""The calibration error on bins counted by hand, and on a model that is calibrated by construction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.collectors.base import Scene
from advbench.collectors.calibration import Calibration, binned
from advbench.threat import Threat


class Says(nn.Module):
    """Two classes; the first pixel is the probability of class 1."""

    def forward(self, x: Tensor) -> Tensor:
        p = x[:, 0, 0, 0]
        return torch.stack([(1 - p).log(), p.log()], 1)


def scene_of(probabilities: Tensor, labels: Tensor, eps: float = 0.0) -> Scene:
    return Scene(Says(), probabilities.view(-1, 1, 1, 1), labels, Threat("Linf", eps), 2)


def test_bins_are_closed_above_and_counted():
    confidence = torch.tensor([0.5, 0.50001, 0.75, 1.0, 0.9], dtype=torch.float64)
    right = torch.tensor([1.0, 0, 1, 1, 0], dtype=torch.float64)

    count, mean, accuracy = binned(confidence, right, 4)

    assert count.tolist() == [0, 1, 2, 2]
    assert mean.tolist() == pytest.approx([0, 0.5, 0.625005, 0.95])
    assert accuracy.tolist() == [0, 1, 0.5, 0.5]


def test_the_error_is_the_mean_distance_over_the_bins():
    probabilities = torch.tensor([0.9] * 10 + [0.7] * 10, dtype=torch.float64)
    labels = torch.tensor([1] * 6 + [0] * 4 + [1] * 7 + [0] * 3)

    found = Calibration(bins=10).collect(scene_of(probabilities, labels)).values

    assert found["clean_ece"].value == pytest.approx((0.3 + 0) / 2)
    assert found["clean_accuracy"].value == pytest.approx(0.65)
    assert found["clean_confidence"].value == pytest.approx(0.8)


def test_a_model_that_knows_has_an_error_that_vanishes_and_attacked_it_has_not():
    draw = torch.Generator().manual_seed(0)
    probabilities = 0.05 + 0.9 * torch.rand(40_000, generator=draw, dtype=torch.float64)
    labels = (torch.rand(40_000, generator=draw, dtype=torch.float64) < probabilities).long()

    found = Calibration().collect(scene_of(probabilities, labels, eps=0.04)).values

    clean, adversarial = (found[f"{where}_ece"].value or 0 for where in ("clean", "adversarial"))
    assert 0 < clean < 0.01
    assert adversarial > 2 * clean


def test_a_model_without_a_gradient_is_calibrated_on_clean_images_alone():
    class Hard(Says):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.detach())

    looked = Scene(Hard(), torch.full((4, 1, 1, 1), 0.8), torch.ones(4).long(), Threat("Linf", 0.1), 2)
    found = Calibration().collect(looked)

    assert set(found.values) == {"clean_ece", "clean_confidence", "clean_accuracy"}
    assert any(note.startswith("adversarial: not applicable") for note in found.notes)
