"""Curvature in the weights against dense Hessians in float64, and against the formulas of logistic regression."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from advbench.attacks.pgd import PGD
from advbench.collectors.base import NotApplicable, Scene
from advbench.collectors.param_hessian import ParamHessian
from advbench.collectors.weight_products import Loss, WeightHessian
from advbench.losses import cross_entropy
from advbench.threat import Threat

ONE_STEP = PGD(steps=1, step_size=1.0, random_start=False)
"""On a linear model the exact maximum of an L2 ball."""


def tiny(activation: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), activation, nn.Flatten(), nn.Linear(8, 3)
    ).double()  # 18 + 2 + 4 + 24 + 3 = 51 weights


@pytest.fixture
def small():
    """A function: -> a scene of 12 images and 51 weights in three classes."""

    def make(activation: nn.Module | None = None, **fields) -> Scene:
        model = tiny(activation or nn.Tanh()).eval().requires_grad_(False)
        draw = torch.Generator().manual_seed(1)
        x = torch.rand(12, 1, 4, 4, generator=draw, dtype=torch.float64)
        how: dict[str, Any] = {"threat": Threat("L2", 0.3), "classes": 3, "attack": PGD(steps=5), **fields}
        return Scene(model, x, torch.arange(12) % 3, **how)

    return make


def flat_loss(scene: Scene, images: Tensor):
    """The mean loss as a function of all weights in one vector, by torch.func alone."""
    names = dict(scene.model.named_parameters())

    def loss(flat: Tensor) -> Tensor:
        pieces = flat.split([value.numel() for value in names.values()])
        weights = {name: piece.view_as(value) for (name, value), piece in zip(names.items(), pieces, strict=True)}
        return cross_entropy(functional_call(scene.model, weights, (images,)), scene.y).mean()

    return loss, torch.cat([value.flatten() for value in names.values()])


def whole(hessian: WeightHessian) -> Tensor:
    """The matrix, column by column."""
    columns = torch.eye(hessian.size, dtype=torch.float64)
    return torch.stack([hessian(column[None])[0] for column in columns])


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU()], ids=str)
@pytest.mark.parametrize("loss", ["clean", "fixed"])
@pytest.mark.parametrize("batch", [256, 5])
def test_products_are_those_of_the_dense_hessian(small, activation, loss: Loss, batch):
    scene = small(activation, batch=batch)
    function, at = flat_loss(scene, scene.x if loss == "clean" else scene.adversarial)
    expected: Any = torch.autograd.functional.hessian(function, at)

    assert torch.allclose(whole(WeightHessian(scene, loss)), expected, atol=1e-12)
    assert expected.abs().max() > 1e-2


def test_graphs_that_do_not_fit_are_made_again(small, monkeypatch):
    scene = small(batch=5)
    kept = whole(WeightHessian(scene, "clean"))
    monkeypatch.setattr("advbench.collectors.weight_products.fitting", lambda model, x, most: most - 1)
    told = WeightHessian(scene, "clean")

    assert torch.allclose(whole(told), kept, atol=1e-12)
    assert told._kept == []


def test_graphs_that_memory_does_not_hold_are_let_go_and_a_product_is_one_product(small, monkeypatch):
    kept = WeightHessian(small(), "clean")
    expected = kept(way := torch.ones(1, 51, dtype=torch.float64))
    hessian = WeightHessian(small(), "clean")
    slope = hessian._slope

    def lacking(rows: Tensor) -> Any:
        if hessian._keeps:
            raise torch.OutOfMemoryError("no memory")
        return slope(rows)

    monkeypatch.setattr(hessian, "_slope", lacking)

    torch.testing.assert_close(hessian(way), expected, rtol=1e-10, atol=1e-14)
    assert (hessian.products, kept.products, hessian._keeps, hessian._kept) == (1, 1, False, [])
    assert torch.equal(hessian(way), hessian(way))
    assert hessian.products == 3

    def never(rows: Tensor) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(hessian, "_slope", never)
    with pytest.raises(torch.OutOfMemoryError):
        hessian(way)


@pytest.mark.parametrize("loss", ["clean", "fixed", "moving"])
def test_top_trace_and_density_are_those_of_the_dense_hessian(small, loss: Loss):
    scene = small()
    values = torch.linalg.eigvalsh(whole(WeightHessian(scene, loss))).flip(0)

    found = ParamHessian(top=51, tolerance=1e-12, probes=0).collect(scene)

    assert torch.allclose(found.arrays[f"{loss}_values"], values, atol=1e-9)
    assert found.values[f"{loss}_top1"].value == pytest.approx(float(values[0]), rel=1e-9)
    assert found.values[f"{loss}_lowest"].value == pytest.approx(float(values[-1]), abs=1e-9)
    assert found.values[f"{loss}_trace"].value == pytest.approx(float(values.sum()), rel=1e-9)
    # Five hundredths of the spectrum's width beyond both of its ends.
    at, beyond = found.arrays[f"{loss}_density_at"], 0.05 * float(values[0] - values[-1])
    assert float(at[0]) == pytest.approx(float(values[-1]) - beyond, abs=1e-9)
    assert float(at[-1]) == pytest.approx(float(values[0]) + beyond, abs=1e-9)
    step = at.diff()[0]
    assert float(found.arrays[f"{loss}_density"].sum() * step) == pytest.approx(1, abs=1e-6)


def test_it_stops_at_the_tolerance_and_the_trace_is_within_its_error(small):
    scene = small()
    values = torch.linalg.eigvalsh(whole(WeightHessian(scene, "fixed"))).flip(0)

    found = ParamHessian(top=2, probes=40).collect(scene)

    top = found.arrays["fixed_values"]
    assert (top - values[:2]).abs().max() < 1e-3 * float(values[0])
    error = found.values["fixed_trace_error"].value
    assert error is not None
    assert abs((found.values["fixed_trace"].value or 0) - float(values.sum())) < 4 * error + 1e-9
    assert len(found.arrays["fixed_ritz"][0]) < 30


def test_logistic_regression_has_the_hessians_of_its_formulas(logistic):
    model, x, y = logistic(0)
    w, eps = model.w.detach(), 0.1
    scene = Scene(model.eval().requires_grad_(False), x, y, Threat("L2", eps), 2, attack=ONE_STEP)
    # L_eps(w) = mean softplus(-s w.x + eps |w|) of signs s: the closed-form L2 adversary.
    signs = 2.0 * y.double() - 1
    unit = w / w.norm()
    s = torch.sigmoid(-signs * (x.flatten(1) @ w) + eps * w.norm())
    u = -signs[:, None] * x.flatten(1) + eps * unit
    fixed = (u.mT * (s * (1 - s))) @ u / len(x)
    across = torch.eye(12, dtype=torch.float64) - torch.outer(unit, unit)
    full = fixed + eps * s.mean() / w.norm() * across

    assert (whole(WeightHessian(scene, "fixed")) - fixed).abs().max() < 1e-9
    assert (whole(WeightHessian(scene, "moving")) - full).abs().max() < 1e-9
    assert (full - fixed).abs().max() > 1e-3


def test_a_moving_attack_goes_all_the_way_to_the_radius_or_to_the_box(small):
    scene = small()
    leaf = scene.adversarial.clone().requires_grad_()
    slope = torch.autograd.grad(cross_entropy(scene.model(leaf), scene.y).sum(), leaf)[0]
    far = scene.x + 0.3 * slope / slope.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (far < 0).any()
    assert (far > 1).any()

    found = WeightHessian(scene, "moving").value(torch.arange(12))

    torch.testing.assert_close(found.detach(), cross_entropy(scene.model(far.clamp(0, 1)), scene.y))


def test_a_moving_attack_s_hessian_is_the_slope_of_its_gradient(small):
    scene = small()
    hessian = WeightHessian(scene, "moving")
    way = torch.randn(1, 51, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected, h, slopes = hessian(way), 1e-5, []
    for sign in (1, -1):
        moved = WeightHessian(scene, "moving")
        with torch.no_grad():
            for leaf, piece in zip(moved.leaves, way[0].split([leaf.numel() for leaf in moved.leaves]), strict=True):
                leaf += sign * h * piece.view_as(leaf)
        slopes.append(torch.cat([part.flatten() for part in moved._slope(torch.arange(12))]).detach())

    assert torch.allclose(expected[0], (slopes[0] - slopes[1]) / (2 * h), rtol=1e-5, atol=1e-8)
    assert (expected - WeightHessian(scene, "fixed")(way)).norm() > 0.01 * expected.norm()


def test_batches_change_nothing_and_linf_says_what_it_leaves_out(small):
    found = [ParamHessian().collect(small(threat=Threat("Linf", 0.1), batch=batch)) for batch in (256, 5)]

    assert not any(name.startswith("moving") for name in found[0].values)
    assert any("constant almost everywhere" in note for note in found[0].notes)
    for name, measure in found[0].values.items():
        assert found[1].values[name].value == pytest.approx(measure.value, rel=1e-6, abs=1e-9), name


def test_more_eigenvalues_than_weights_are_not_made_up(small):
    found = ParamHessian(top=100).collect(small())

    assert found.arrays["clean_values"].shape == (51,)
    assert "top = 100 is above the number of weights, 51" in found.notes


def test_a_model_that_is_differentiable_once_is_told(small):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.tanh()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
            return grad

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)

    with pytest.raises(NotApplicable, match="cannot be differentiated twice"):
        ParamHessian().collect(small(Module()))


def test_a_loss_that_overflows_has_no_number_and_says_so(small):
    scene = small()
    scene.model[-1].weight.data.fill_(torch.inf)

    found = ParamHessian().collect(scene)

    assert found.values["clean_top1"].value is None
    assert "clean: the loss or its curvature is not finite on these examples" in found.notes


def test_where_memory_is_short_there_are_fewer_vectors_and_it_says_how_well_it_knows(small, monkeypatch):
    monkeypatch.setattr("advbench.collectors.param_hessian.free", lambda device: 4 * 51 * 8 * 3)

    found = ParamHessian().collect(small())

    assert found.arrays["clean_ritz"].shape == (1, 3)
    monkeypatch.setattr("advbench.collectors.param_hessian.free", lambda device: 0)
    assert ParamHessian(top=1).collect(small()).arrays["clean_ritz"].shape == (1, 2)
    monkeypatch.setattr("advbench.collectors.param_hessian.free", lambda device: None)
    assert ParamHessian(steps=5, tolerance=1e-300).collect(small()).arrays["clean_ritz"].shape == (1, 5)
    assert any(note.startswith("clean: after 3 steps the largest values are known to") for note in found.notes)


def test_a_density_of_several_runs_has_a_row_for_each_and_one_of_a_flat_loss_has_a_width(small):
    found = ParamHessian(runs=3, top=2).collect(small()).arrays
    rows, taken = found["clean_ritz"].shape

    assert rows == 3
    assert found["clean_weights"].shape == (3, taken)
    assert torch.allclose(found["clean_weights"].sum(1), torch.ones(3, dtype=torch.float64))
    assert len({round(float(value), 12) for value in found["clean_weights"][:, 0]}) == 3

    flat = small(nn.Threshold(99.0, 0.0))
    flat.model[-1].weight.data.zero_()
    flat.model[-1].bias.data.copy_(torch.tensor([900.0, 0, 0]))
    at = ParamHessian(top=1).collect(Scene(flat.model, flat.x, 0 * flat.y, flat.threat, 3)).arrays["clean_density_at"]
    assert (float(at[0]), float(at[-1])) == (pytest.approx(-0.05), pytest.approx(0.05))
