"""Is PGD good? Asked on models whose best adversarial example is known in closed form."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from advbench.attacks.pgd import PGD, Schedule, ascend, input_gradient
from advbench.losses import cross_entropy
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat, per_example

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
SHAPES = [(16, 12), (16, 1, 4, 3), (16, 3, 2, 2)]
DTYPES = [torch.float32, torch.float64]
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-9}


class Linear(nn.Module):
    """Logits W (x - 1/2) of flattened examples: every class is near the middle of the box."""

    def __init__(self, classes: int, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(classes)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=source, dtype=torch.float64).to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T


class Quadratic(nn.Module):
    """Two logits whose cross-entropy for label 0 grows with -||x - peak||^2, a concave function of x."""

    def __init__(self, peak: Tensor) -> None:
        super().__init__()
        self.peak = peak

    def forward(self, x: Tensor) -> Tensor:
        height = -(x - self.peak).flatten(1).square().sum(1)
        return torch.stack([torch.zeros_like(height), height], dim=1)


def noise(n: int) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), 0, n, torch.arange(n))


def unit(norm: Norm, w: Tensor) -> Tensor:
    """The direction of unit size along which <w, d> grows fastest: all pixels, along w, or one pixel. (N, d)."""
    if norm == "L2":
        return w / w.norm(dim=1, keepdim=True)
    return w.sign() if norm == "Linf" else w.sign() * torch.nn.functional.one_hot(w.abs().argmax(1), w.shape[1])


def middle(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Examples far enough from the box that it does not bind."""
    return 0.4 + 0.2 * torch.rand(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_pgd_finds_the_best_point_of_a_two_class_hyperplane(norm, shape, dtype, random_start):
    x, threat = middle(shape, dtype), Threat(norm, 0.1)
    model = Linear(2, 12, dtype)
    y = torch.arange(len(x)) % 2

    x_adv = PGD(steps=100, random_start=random_start).run(model, x, y, threat, noise(len(x)))

    # Away from the label's side of the plane, with the whole radius.
    away = (model.weight[1] - model.weight[0]).detach() * per_example(1 - 2 * y, x.flatten(1))
    # Linf and L1 reach the corner exactly; in L2 the steps along the sphere converge to the best point.
    atol = 5e-5 if norm == "L2" else TOLERANCE[dtype]
    torch.testing.assert_close(x_adv - x, threat.eps * unit(norm, away).view(shape), rtol=0, atol=atol)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [8 / 255, 0.1, 0.3])
def test_pgd_reaches_the_closed_form_robust_loss_of_a_hyperplane(norm, eps):
    x, threat = middle((64, 3, 2, 2), torch.float64), Threat(norm, eps)
    model = Linear(2, 12, torch.float64)
    y = torch.arange(64) % 2

    x_adv = PGD(steps=40).run(model, x, y, threat, noise(64))

    w = (model.weight[1] - model.weight[0]).detach()
    margin = (x.flatten(1) - 0.5) @ w * (2 * y - 1)
    dual = threat.dual_norm(w[None])
    closed = torch.nn.functional.softplus(-(margin - eps * dual))
    torch.testing.assert_close(cross_entropy(model(x_adv), y).detach(), closed, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_reaches_what_the_box_leaves_of_a_hyperplane(norm):
    # At a corner of the box only the directions into the box are left.
    x, threat = torch.zeros(4, 12, dtype=torch.float64), Threat(norm, 0.2)
    model = Linear(2, 12, torch.float64)
    y = torch.zeros(4, dtype=torch.int64)

    x_adv = PGD(steps=200).run(model, x, y, threat, noise(4))

    w = (model.weight[1] - model.weight[0]).detach().clamp_min(0)
    best = 0.2 * unit(norm, w[None])[0]
    if norm != "L2":
        torch.testing.assert_close(x_adv, best.expand(4, -1), rtol=0, atol=1e-12)
    else:
        # Ball first, box second is not the nearest point, so a step spends some of its radius outside the box.
        assert (x_adv @ w >= 0.98 * best @ w).all()
        assert (x_adv @ w <= best @ w).all()


@pytest.mark.parametrize(("step_size", "steps", "share"), [(0.25, 20, 0.9), (0.05, 60, 0.98), (0.01, 300, 0.996)])
@pytest.mark.parametrize("eps", [0.7, 2.5, 6.0])
def test_pgd_in_l1_comes_near_the_best_point_of_a_hyperplane_as_its_steps_shrink(eps, step_size, steps, share):
    x, model, threat = middle((8, 64), torch.float64), Linear(2, 64, torch.float64), Threat("L1", eps)
    w = (model.weight[1] - model.weight[0]).detach()

    x_adv = PGD(steps=steps, step_size=step_size).run(model, x, torch.zeros(8, dtype=torch.int64), threat, noise(8))

    # The best point fills one pixel after the other, the steepest first; `step` is tested to find it.
    best = ((threat.step(x, w.expand(8, -1), eps) - x) @ w).detach()
    found = ((x_adv - x) @ w).detach()
    assert (found >= share * best).all()
    assert (found <= best + 1e-9).all()


def test_pgd_finds_the_worst_corner_among_many_classes():
    """Cross-entropy of a linear model is convex in x, so its maximum over an Linf ball is one of the 2^12 corners."""
    model, threat = Linear(4, 12, torch.float64), Threat("Linf", 0.01)
    x, y = middle((60, 12), torch.float64), torch.arange(60) % 4
    corners = threat.eps * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 12)
    best = torch.stack([cross_entropy(model(a + corners), b.expand(4096)).amax() for a, b in zip(x, y, strict=True)])

    found = cross_entropy(model(PGD(steps=50).run(model, x, y, threat, noise(60))), y)

    assert (found <= best + 1e-12).all()
    # A convex function has several best corners of their neighbourhoods; a few examples end in the second best.
    assert (found >= best - 1e-9).double().mean() >= 0.9
    assert (found >= 0.999 * best).all()


@pytest.mark.parametrize("norm", NORMS)
def test_pgd_breaks_no_multi_class_example_that_cannot_be_broken(norm):
    """The distance to the nearest of several hyperplanes is the least over k of (z_y - z_k) / ||w_y - w_k||_dual."""
    model, n = Linear(5, 12, torch.float64), 400
    x = middle((n, 12), torch.float64)
    y = model(x).argmax(1)
    threat = Threat(norm, {"Linf": 0.01, "L2": 0.03, "L1": 0.05}[norm])
    gap = model(x).gather(1, y[:, None]) - model(x)
    dual = torch.stack([threat.dual_norm(model.weight[y] - w) for w in model.weight], dim=1)
    distance = (gap / dual).masked_fill(torch.nn.functional.one_hot(y, 5).bool(), torch.inf).amin(1).detach()

    x_adv = PGD(steps=50).run(model, x, y, threat, noise(n))

    broken = model(x_adv).argmax(1) != y
    possible = distance <= threat.eps
    assert not broken[~possible].any()
    # Cross-entropy weighs all classes, so it does not always make for the nearest plane.
    assert 100 < possible.sum() < 300
    assert broken[possible].double().mean() > 0.8


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", NORMS)
def test_ascent_stops_at_a_peak_inside_the_ball(norm, shape, dtype):
    x = middle(shape, dtype)
    offset = torch.linspace(-1, 1, 12, dtype=dtype).view(shape[1:]).expand(shape)
    threat = Threat(norm, 0.1)
    peak = x + 0.5 * threat.eps * offset / per_example(threat.size(offset), x)
    x_adv = x
    # Steps of a fixed size circle a peak at that size, so they shrink as they go.
    for step_size in 0.05 * 0.7 ** torch.arange(30):
        x_adv = ascend(
            Quadratic(peak),
            x,
            torch.zeros(len(x), dtype=torch.int64),
            threat,
            start=x_adv,
            steps=8,
            step_size=float(step_size),
        )

    torch.testing.assert_close(x_adv, peak, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_pgd_reaches_the_projection_of_a_peak_outside_the_ball(shape, norm):
    # -||x - peak||^2 over the ball is greatest at the ball's nearest point to the peak.
    x = middle(shape, torch.float64)
    offset = torch.linspace(0.5, 1, 12, dtype=torch.float64).view(shape[1:]).expand(shape)
    threat = Threat(norm, 0.1)
    peak = x + 10 * threat.eps * offset

    # In L1 a step moves one pixel and the projection gives way in all, so the goal is missed by a part of a step.
    share, atol = (0.01, 0.01 * threat.eps) if norm == "L1" else (0.25, 1e-6)
    attack = PGD(steps=300, step_size=share)
    x_adv = attack.run(Quadratic(peak), x, torch.zeros(len(x), dtype=torch.int64), threat, noise(len(x)))

    torch.testing.assert_close(x_adv, threat.project(peak, x), rtol=0, atol=atol)


@pytest.mark.parametrize("norm", NORMS)
def test_candidates_are_allowed_where_the_box_binds(norm):
    x = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(1)).mul(2).sub(0.5).clamp(0, 1)
    threat = Threat(norm, 0.3)

    x_adv = PGD().run(Linear(3, 48, torch.float32), x, torch.arange(200) % 3, threat, noise(200))

    assert threat.contains(x_adv, x).all()
    assert x_adv.shape == x.shape


def test_an_attack_leaves_no_trace_on_model_or_input():
    model, x = Linear(3, 12, torch.float32), middle((6, 12), torch.float32)
    before, weight = x.clone(), model.weight.detach().clone()

    PGD(steps=3).run(model, x, torch.arange(6) % 3, Threat("Linf", 0.1), noise(6))

    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model.weight, weight)
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None


def test_the_gradient_of_an_example_does_not_depend_on_its_batch():
    model, x = Linear(3, 12, torch.float64), middle((6, 12), torch.float64)
    y = torch.arange(6) % 3

    whole = input_gradient(model, x, y)

    torch.testing.assert_close(whole[2:3], input_gradient(model, x[2:3], y[2:3]), rtol=1e-12, atol=0)
    # d/dx of cross-entropy of a linear model: W^T (softmax - onehot).
    expected = (model(x).softmax(1) - torch.nn.functional.one_hot(y, 3)) @ model.weight
    torch.testing.assert_close(whole, expected.detach(), rtol=1e-12, atol=1e-15)


def test_gradients_flow_though_the_caller_turned_them_off():
    model, x = Linear(2, 12, torch.float64), middle((4, 12), torch.float64)
    with torch.no_grad():
        grad = input_gradient(model, x, torch.zeros(4, dtype=torch.int64))

    assert (grad != 0).all()


@pytest.mark.parametrize("bad", [{"steps": 0}, {"step": 0}, {"restarts": 0}, {"setps": 3}, {"step": float("nan")}])
def test_bad_hyper_parameters_are_refused(bad):
    with pytest.raises(ValidationError):
        PGD(**bad)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("steps", [1, 2, 9, 20])
def test_a_falling_step_size_adds_up_to_what_its_formula_says(norm, steps):
    # On a plane the gradient never turns, and in a ball that binds nowhere the steps add up: of K steps, the shares
    # 1 - k/K and (1 + cos(pi k/K)) / 2 for k < K both sum to (K + 1) / 2.
    x, threat, model = middle((4, 12), torch.float64), Threat(norm, 0.3), Linear(2, 12, torch.float64)
    y = torch.zeros(4, dtype=torch.int64)
    size = 0.2 / steps
    sums: dict[Schedule, float] = {"constant": steps, "linear": (steps + 1) / 2, "cosine": (steps + 1) / 2}
    for schedule, total in sums.items():
        found = ascend(model, x, y, threat, start=x, steps=steps, step_size=size, schedule=schedule)
        torch.testing.assert_close(threat.size(found - x), torch.full((4,), total * size).double())


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_falling_step_size_ends_nearer_to_a_peak_than_the_constant_one(norm, schedule):
    x = middle((16, 12), torch.float64)
    offset = torch.linspace(-1, 1, 12, dtype=torch.float64).expand(16, 12)
    threat = Threat(norm, 0.1)
    peak = x + 0.5 * threat.eps * offset / per_example(threat.size(offset), x)
    y = torch.zeros(16, dtype=torch.int64)

    def miss(schedule: Schedule | None) -> Tensor:
        return (PGD(steps=200, schedule=schedule).run(Quadratic(peak), x, y, threat, noise(16)) - peak).norm(dim=1)

    assert torch.equal(miss(None), miss("constant"))
    # A constant step circles the peak at about its own size.
    assert (miss(schedule) < 0.1 * miss(None)).all()


def test_no_schedule_says_nothing_so_that_jobs_keep_their_ids():
    assert PGD().plain() == {"label": None, "restarts": 1, "steps": 20, "step_size": 0.25, "random_start": True}
    assert PGD(schedule="linear").plain()["schedule"] == "linear"
    with pytest.raises(ValidationError):
        PGD.model_validate({"schedule": "cosin"})
