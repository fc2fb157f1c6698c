"""Its gap against the suite's own, the linear network's closed form; and its claims fail when it is spoilt."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch

from advbench.find import build
from advbench.spec import BadInput
from advbench.studies.first_order_dynamics import FirstOrderDynamics
from advbench.study import Setting
from advbench.threat import Threat

from small_studies import claims_of, setting_of  # isort: skip

SMALL = {"scales": (0.1, 0.5, 3.0), "width": 800, "samples": 10, "starts": 4, "cap": 100, "hidden": 32, "epochs": 1}


@pytest.fixture(scope="module")
def setting() -> Setting:
    return setting_of(FirstOrderDynamics)


def test_the_gap_is_that_of_frank_and_wolfe_as_a_share():
    torch.manual_seed(0)
    d, g = torch.randn(2, 5, 7, dtype=torch.float64)
    threat, study = Threat("L2", 3.0), FirstOrderDynamics()

    own = study.gap(d, g, 3.0) * threat.eps * threat.dual_norm(g)

    assert torch.allclose(own, threat.fosc(d, torch.zeros_like(d), g))
    assert torch.allclose(study.gap(3 * g / g.norm(dim=1, keepdim=True), g, 3.0), torch.zeros(5).double(), atol=1e-12)


class Linear(FirstOrderDynamics):
    """sigma(z) = z: f is linear, so f - y keeps its sign on a small ball and the maximum is one point."""

    seen: ClassVar[list[torch.Tensor]] = []

    def activation(self, kind, z):
        del kind
        return z

    def project(self, d, radius):
        ended = super().project(d, radius)
        self.seen[:] = [ended]
        return ended


def test_a_linear_network_has_one_maximum_at_the_end_of_its_own_direction(setting: Setting):
    study = Linear.model_validate({**SMALL, "samples": 1, "tolerance": 1e-12, "cap": 300})

    found = study.landscape("tanh", 1e-3, setting)

    source = setting.generator("network")
    w = torch.randn(study.width, 64, generator=source, dtype=torch.float64)
    a = 2.0 * torch.randint(2, (study.width,), generator=source).double() - 1
    way = torch.nn.functional.normalize(a @ w, dim=0)
    (ended,) = Linear.seen
    assert found["maxima"] == 0
    assert found["sphere"] == 1
    # The sign is that of f - y, the same for all starts.
    assert float((ended @ way).abs().min()) == pytest.approx(0.5e-3, rel=1e-9)


def test_every_scale_meets_the_same_network_and_inputs(setting: Setting):
    study = FirstOrderDynamics.model_validate(SMALL)

    x, y = study._inputs(1.0, setting)
    scaled, same = study._inputs(3.0, setting)

    assert torch.allclose(scaled, 3 * x)
    assert torch.equal(y, same)
    assert torch.allclose(x.norm(dim=1), torch.ones(10).double())


def test_the_training_attack_keeps_to_the_ball_and_raises_the_loss(setting: Setting):
    study = FirstOrderDynamics.model_validate(SMALL)
    torch.manual_seed(0)
    x, y = torch.randn(9, 5), torch.arange(9) % 3
    w, a = torch.randn(8, 5), torch.randn(3, 8)

    d = study.attack(x, y, w, a, 0.3)

    assert (d.norm(dim=1) <= 0.3 * (1 + 1e-6)).all()
    each = [torch.nn.functional.cross_entropy(torch.tanh(at @ w.T) @ a.T, y, reduction="none") for at in (x, x + d)]
    assert (each[1] > each[0]).all()


def test_its_claims_about_tanh_hold_in_a_smaller_network():
    held = claims_of(FirstOrderDynamics.model_validate(SMALL), seeds=5)

    assert held["iterations_ratio"] == held["on_sphere"] == held["several_maxima"] == "holds"


class Relu(FirstOrderDynamics):
    """Positively homogeneous: the scale of the input has no effect on its landscape."""

    def activation(self, kind, z):
        del kind
        return z.relu()


class LooseRadius(FirstOrderDynamics):
    """The input is scaled and the radius is not."""

    def radius(self, scale, ratio):
        return ratio * 3.0 + 0.0 * scale


class NoProjection(FirstOrderDynamics):
    """Half-way back into the ball."""

    def project(self, d, radius):
        return super().project(d, 0.5 * radius)


class OneScale(FirstOrderDynamics):
    """The input is never scaled."""

    def landscape(self, kind, scale, setting):
        return super().landscape(kind, self.scales[0] + 0.0 * scale, setting)


class OneRate(FirstOrderDynamics):
    """The rate does not make up for the scale."""

    def trained(self, scale, lr, setting):
        return super().trained(scale, self.lr + 0.0 * lr, setting)


@pytest.mark.slow
def test_a_relu_in_the_place_of_a_smooth_unit_fails():
    held = claims_of(Relu.model_validate(SMALL), seeds=5)

    assert held["iterations_ratio"] == "does not hold"
    assert held["several_maxima"] != "holds"


def test_a_radius_that_does_not_follow_the_scale_fails():
    assert claims_of(LooseRadius.model_validate(SMALL), seeds=3)["iterations_ratio"] == "does not hold"


def test_inputs_that_are_not_scaled_fail():
    held = claims_of(OneScale.model_validate(SMALL))

    assert held["iterations_ratio"] == held["several_maxima"] == "does not hold"


def test_points_inside_the_ball_are_seen():
    assert claims_of(NoProjection.model_validate(SMALL))["on_sphere"] == "does not hold"


@pytest.mark.slow
def test_one_rate_in_the_place_of_matched_ones_fails():
    study = OneRate.model_validate({**SMALL, "epochs": 5})

    assert claims_of(study)["training_loss_matched"] == "does not hold"


def test_a_field_that_is_none_of_the_scales_is_refused():
    with pytest.raises(BadInput, match="compared should be one of the scales above the smallest, not 2"):
        build(FirstOrderDynamics, {"compared": 2.0})


@pytest.mark.parametrize("fields", [{"samples": 0}, {"width": 0}, {"starts": 1}, {"scales": [0, 1, 3]}, {"norm": "L1"}])
def test_sizes_of_zero_and_norms_are_refused(fields: dict[str, object]):
    with pytest.raises(BadInput):
        build(FirstOrderDynamics, fields)
