"""The gradient of adversarial training jumps in Linf and not in L2: on a linear model, where that is exact."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.collectors.base import Scene
from advbench.collectors.landscape import dot, filter_normalized, normal
from advbench.collectors.smoothness import Smoothness, log_slope, norms
from advbench.find import build
from advbench.seeds import generator
from advbench.spec import BadInput
from advbench.threat import Norm, Threat


class Row(nn.Module):
    """The logistic model with its weights as one filter."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w[None])

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1) @ self.w[0] / 2
        return torch.stack([-half, half], 1)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_where_a_weight_is_zero_linf_jumps_and_l2_does_not(logistic, norm: Norm):
    model, x, y = logistic(0)
    w = model.w.detach().clone()
    w[3] = 0  # the sign of the best step there changes with the weight's
    eps = 0.05 if norm == "Linf" else 0.05 * 12**0.5
    scene = Scene(Row(w).requires_grad_(False), x, y, Threat(norm, eps), 2)

    measured = Smoothness(sizes=(1e-4, 1e-5, 1e-6)).collect(scene)
    found = measured.values

    # One that jumps is ten times as fast at a tenth of the size, and the number is that at the last one.
    rates = measured.arrays["adversarial_Linf_rate"]
    assert found["adversarial_Linf_rate"].value == float(rates[-1]) > 5 * float(rates[0])
    assert measured.arrays["sizes"].dtype == torch.float64
    assert found["adversarial_Linf_slope"].value == pytest.approx(-1, abs=0.05)
    assert found["adversarial_L2_slope"].value == pytest.approx(0, abs=0.05)
    assert found["clean_slope"].value == pytest.approx(0, abs=0.05)


def test_the_clean_rate_is_the_hessian_s(logistic):
    model, x, y = logistic(1)
    w = model.w.detach()
    scene = Scene(Row(w).requires_grad_(False), x, y, Threat("Linf", 0.05), 2)
    weights = {"w": scene.parameters()["w"].detach()}
    way = filter_normalized(normal(weights, generator("cpu", 0, "smoothness")), weights)
    s = torch.sigmoid((2.0 * y - 1) * (x.flatten(1) @ w))
    hessian = (x.flatten(1).mT * (s * (1 - s))) @ x.flatten(1) / len(x)

    found = Smoothness(sizes=(1e-3, 1e-4)).collect(scene).values["clean_rate"].value

    assert found == pytest.approx(float((hessian @ way["w"][0]).norm()) / dot(way, way) ** 0.5, rel=1e-5)


def test_other_balls_reach_as_far():
    assert norms(Threat("Linf", 0.1), 100) == (Threat("Linf", 0.1), Threat("L2", 1.0))
    assert norms(Threat("L2", 1.0), 100) == (Threat("L2", 1.0), Threat("Linf", 0.1))
    assert norms(Threat("L1", 3.0), 100) == (Threat("L1", 3.0),)


def test_a_slope_is_a_power_s():
    x = torch.tensor([1e-1, 1e-2, 1e-3])

    assert log_slope(x, 3 * x**-1) == pytest.approx(-1)
    assert log_slope(x, torch.ones(3)) == pytest.approx(0)


@pytest.mark.parametrize("size", [0, -0.01])
def test_a_way_of_no_length_is_refused(size: float):
    with pytest.raises(BadInput, match=r"sizes\[1\]"):
        build(Smoothness, {"sizes": [0.01, size]})
