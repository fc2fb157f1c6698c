"""Rises around the weights, on losses whose rise is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.pgd import PGD
from advbench.collectors import sharpness
from advbench.collectors.base import Scene
from advbench.collectors.landscape import attacked, filter_normalized, mean_loss, moved, normal, slope
from advbench.collectors.sharpness import Sharpness, asam, awp, sam
from advbench.threat import Threat

DTYPE = torch.float64


class Bowl(nn.Module):
    """Logits 0 and q = w.A.w / 2 + b.w, a quadratic in the weights; the image only adds 0."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(2, 3, generator=source, dtype=DTYPE))
        half = torch.randn(6, 6, generator=source, dtype=DTYPE)
        self.A, self.b = half @ half.mT / 6, torch.randn(6, generator=source, dtype=DTYPE)

    def q(self, w: Tensor) -> Tensor:
        return w @ self.A @ w / 2 + self.b @ w

    def forward(self, x: Tensor) -> Tensor:
        height = self.q(self.w.flatten()) + 0 * x.flatten(1).sum(1)
        return torch.stack([torch.zeros_like(height), height], dim=1)


@pytest.fixture
def bowl(monkeypatch) -> Scene:
    """A scene whose loss is the quadratic itself."""
    raw = lambda logits, labels: logits[:, 1] - logits[:, 0]  # noqa: E731
    monkeypatch.setattr("advbench.collectors.landscape.cross_entropy", raw)
    model = Bowl().requires_grad_(False)
    return Scene(model, torch.full((4, 1, 2, 2), 0.5, dtype=DTYPE), torch.zeros(4).long(), Threat("L2", 0.1), 2)


def test_a_quadratic_rises_as_it_is_known_to(bowl):
    model = bowl.model
    found = Sharpness(sam=(0.3,), asam=(0.2,), awp=(0.1,), average=(0.5,), directions=4000, side=0, points=3).collect(
        bowl
    )
    w = model.w.flatten()
    uphill = model.A @ w + model.b

    def rise(step: Tensor) -> float:
        return float(model.q(w + step) - model.q(w))

    scaled = w.abs() * uphill
    expected = {
        "sam_0.3": rise(0.3 * uphill / uphill.norm()),
        "asam_0.2": rise(0.2 * w.abs() * scaled / scaled.norm()),
        "awp_0.1": rise(0.1 * w.norm() * uphill / uphill.norm()),
    }
    for loss in ("clean", "adversarial"):
        for name, value in expected.items():
            assert found.values[f"{loss}_{name}"].value == pytest.approx(value, rel=1e-10), name
        assert found.values[f"{loss}_loss"].value == pytest.approx(float(model.q(w)), rel=1e-12)
        # On the sphere of radius r the mean of d.A.d / 2 is r^2 tr(A) / (2 P); both ways, so b.d drops out.
        average = found.values[f"{loss}_average_0.5"].value
        assert average == pytest.approx(float(0.25 * model.A.trace() / 12), rel=0.05)


def test_the_curve_and_the_surface_are_the_loss_where_the_directions_lead(bowl):
    found = Sharpness(points=5, side=3, directions=1, reach=0.5).collect(bowl)
    model, weights = bowl.model, {"w": bowl.model.w}
    first, second = (Sharpness()._direction(bowl, weights, number)["w"].flatten() for number in (0, 1))

    curve = [model.q(model.w.flatten() + a * first) for a in (-0.5, -0.25, 0, 0.25, 0.5)]
    surface = [[model.q(model.w.flatten() + a * first + b * second) for b in (-0.5, 0, 0.5)] for a in (-0.5, 0, 0.5)]

    assert torch.allclose(found.arrays["clean_curve"], torch.stack(curve), atol=1e-12)
    assert torch.allclose(found.arrays["clean_surface"], torch.tensor(surface, dtype=DTYPE), atol=1e-12)
    assert found.values["clean_curve_rise"].value == pytest.approx(float((curve[0] + curve[4]) / 2 - curve[2]))


def test_by_default_curve_and_surface_have_the_unmoved_model_in_their_middle():
    assert Sharpness().points % 2 == Sharpness().side % 2 == 1


def test_filter_normalisation_leaves_batch_norm_and_biases_alone():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4)).double()
    weights = {name: value.detach() for name, value in model.named_parameters()}

    found = filter_normalized(normal(weights, torch.Generator().manual_seed(1)), weights)

    for name in ("0.bias", "1.weight", "1.bias", "3.bias"):
        assert (found[name] == 0).all(), name
    for name in ("0.weight", "3.weight"):
        own, theirs = (value[name].flatten(1).norm(dim=1) for value in (found, weights))
        assert torch.allclose(own, theirs), name
    assert abs(float((found["3.weight"] * weights["3.weight"]).sum())) < 0.99 * float(weights["3.weight"].norm() ** 2)


def test_ascent_steps_have_their_lengths():
    torch.manual_seed(0)
    weights = {"a": torch.randn(3, 4, dtype=DTYPE), "b": torch.randn(3, dtype=DTYPE)}
    uphill = {name: torch.randn_like(value) for name, value in weights.items()}

    plain, scaled, wise = (way(uphill, weights) for way in (sam, asam, awp))

    assert sum(float(v.square().sum()) for v in plain.values()) == pytest.approx(1)
    assert sum(float((v / weights[n]).square().sum()) for n, v in scaled.items()) == pytest.approx(1)
    assert float(wise["a"].norm()) == pytest.approx(float(weights["a"].norm()))
    assert (wise["b"] == 0).all()
    nothing = {name: torch.zeros_like(value) for name, value in uphill.items()}
    assert all((way(nothing, weights)["a"] == 0).all() for way in (sam, asam, awp))


def test_adversarial_examples_made_anew_are_stronger_than_frozen_ones(scene):
    looked = scene(40)
    how: dict[str, Any] = {"points": 3, "side": 0, "average": (), "sam": (), "asam": (), "awp": (), "reach": 0.3}
    anew, frozen = (Sharpness(curve=curve, **how).collect(looked) for curve in ("regenerated", "frozen"))

    assert anew.arrays["adversarial_curve"][0] > frozen.arrays["adversarial_curve"][0]
    assert torch.equal(anew.arrays["clean_curve"], frozen.arrays["clean_curve"])
    assert "curve: adversarial examples regenerated, PGD-10" in anew.notes
    assert "curve: adversarial examples frozen" in frozen.notes


def test_the_slope_is_that_of_the_loss_and_moving_touches_nobody(scene):
    looked = scene(20, batch=7)
    weights = {name: value.detach() for name, value in looked.parameters().items()}
    uphill = slope(looked, weights, looked.x)
    rise = (
        mean_loss(looked, moved(weights, (1e-5, uphill)), looked.x)
        - mean_loss(looked, moved(weights, (-1e-5, uphill)), looked.x)
    ) / 2e-5

    assert rise == pytest.approx(sharpness.dot(uphill, uphill), rel=1e-5)
    assert all(torch.equal(weights[name], value) for name, value in looked.model.named_parameters())


def test_a_weight_that_the_loss_does_not_see_has_a_slope_of_zero(bowl):
    weights = {"w": bowl.model.w.detach()}
    expected = slope(bowl, weights, bowl.x)
    bowl.model.register_parameter("unseen", nn.Parameter(torch.ones(3, dtype=DTYPE), requires_grad=False))

    found = slope(bowl, weights | {"unseen": bowl.model.unseen}, bowl.x)

    assert torch.equal(found["w"], expected["w"])
    assert found["unseen"].tolist() == [0, 0, 0]


def test_at_an_even_number_of_points_one_is_the_unmoved_model_and_the_ends_are_the_reach(scene):
    how: dict[str, Any] = {"side": 2, "average": (), "sam": (), "asam": (), "awp": (), "reach": 0.3}
    looked = scene(6)
    found = Sharpness(points=4, steps=2, **how).collect(looked)
    weights = {name: value.detach() for name, value in looked.parameters().items()}

    assert found.arrays["curve_at"].tolist() == pytest.approx([-0.3, -0.1, 0, 0.3])
    assert found.arrays["surface_at"].tolist() == [-0.3, 0.3]
    assert {array.dtype for array in found.arrays.values()} == {DTYPE}
    assert float(found.arrays["clean_curve"][2]) == pytest.approx(found.values["clean_loss"].value)
    # Made anew by as many steps as asked for.
    there = moved(weights, (-0.3, Sharpness()._direction(looked, weights, 0)))
    images = attacked(looked, there, PGD(steps=2))
    assert float(found.arrays["adversarial_curve"][0]) == pytest.approx(mean_loss(looked, there, images))


def test_batches_change_nothing(scene):
    how = Sharpness(points=3, side=3, directions=1)
    whole, small = (how.collect(scene(20, batch=batch)) for batch in (256, 7))

    for name, found in whole.values.items():
        assert small.values[name].value == pytest.approx(found.value, rel=1e-7, abs=1e-10), name
