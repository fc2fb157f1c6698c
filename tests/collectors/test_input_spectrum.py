"""The Hessian in the pixels against autograd's dense one, in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import NotApplicable
from advbench.collectors.input_spectrum import Factor, _excess, factor, piecewise_linear, products
from advbench.losses import cross_entropy

CLASSES = 6


def network(activation: nn.Module | None = None, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(0)
    norm, head = nn.BatchNorm2d(4), nn.Linear(16, CLASSES)
    assert norm.running_var is not None
    norm.running_var.uniform_(0.5, 2)
    head.weight.data *= scale
    made = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), norm, activation or nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), head
    )
    return made.double().eval().requires_grad_(False)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LABELS = torch.arange(7) % CLASSES


def dense(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """(B, D, D) by autograd, one example at a time."""

    def loss(image: Tensor, label: Tensor) -> Tensor:
        return cross_entropy(model(image[None]), label[None]).sum()

    rows = [
        torch.autograd.functional.hessian(lambda image, i=i: loss(image, y[i]), x[i]).flatten(3).flatten(0, 2)
        for i in range(len(x))
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_the_factor_is_the_hessian_and_it_is_positive_of_low_rank(images, scale):
    model = network(scale=scale)
    found = factor(model, images, LABELS)
    expected = dense(model, images, LABELS)

    assert (found.rows.mT @ found.rows - expected).abs().max() < 1e-8 * max(1, float(expected.abs().max()))
    eigenvalues = torch.linalg.eigvalsh(expected).flip(1)
    assert torch.allclose(found.values, eigenvalues[:, : CLASSES - 1], atol=1e-8 * scale**2)
    assert eigenvalues[:, CLASSES - 1 :].abs().max() < 1e-8
    assert eigenvalues.min() > -1e-8
    assert eigenvalues[:, 0].min() > 1e-4  # there is something to be equal to
    assert torch.allclose(found.gradient, input_gradient(model, images, LABELS).flatten(1), atol=1e-12)
    assert torch.allclose(found.logits, model(images))


def test_eigenvectors_are_those_of_the_hessian(images):
    model = network()
    found = factor(model, images, LABELS)

    vectors = found.vectors(3)

    assert torch.allclose(vectors @ vectors.mT, torch.eye(3, dtype=torch.float64).expand(7, 3, 3), atol=1e-8)
    pulled = dense(model, images, LABELS) @ vectors.mT
    assert torch.allclose(pulled, vectors.mT * found.values[:, None, :3], atol=1e-10)


@pytest.mark.parametrize("scale", [100.0, 300.0])
def test_a_saturated_model_s_curvature_is_not_lost_in_float32(images, scale):
    wide, narrow = network(scale=scale), network(scale=scale).float()
    exact = factor(wide, images, LABELS)

    found = factor(narrow, images.float(), LABELS)

    assert exact.values[:, 0].min() < 1e-4
    assert torch.allclose(found.values[:, 0], exact.values[:, 0], rtol=1e-3, atol=0)


def test_products_are_the_hessian_s(images):
    model = network(nn.Softplus())
    vectors = torch.randn(7, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    found = products(model, images, LABELS)(vectors)

    assert torch.allclose(found, (dense(model, images, LABELS) @ vectors[:, :, None]).squeeze(2), atol=1e-10)


class Abs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        (nn.ReLU(inplace=True), True),
        (nn.LeakyReLU(0.1), True),
        (nn.ReLU6(), True),
        (nn.Hardtanh(), True),
        (nn.Identity(), True),
        (Abs(), True),
        (nn.Softplus(), False),
        (nn.GELU(), False),
        (nn.SiLU(), False),
        (nn.Tanh(), False),
        (nn.ELU(), False),
    ],
    ids=str,
)
def test_it_tells_piecewise_linear_networks_from_smooth_ones(images, activation, expected):
    direction = torch.randn(CLASSES, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    assert piecewise_linear(network(activation), images, direction) is expected


def test_what_cannot_be_differentiated_twice_is_told(images):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.relu()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):  # pyright: ignore[reportIncompatibleMethodOverride]
            return grad * (ctx.saved_tensors[0] > 0)

    class Module(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Once.apply(x)

    with pytest.raises(NotApplicable, match="cannot be differentiated twice"):
        piecewise_linear(network(Module()), images, torch.randn(CLASSES, dtype=torch.float64))


@pytest.mark.parametrize("steps", [1, 2, 7, 60])
def test_the_closed_form_is_the_ascent_on_the_quadratic_model(images, steps):
    model = network(scale=3.0)
    found = factor(model, images, LABELS)
    hessian = found.rows.mT @ found.rows
    delta = torch.zeros(7, 16, dtype=torch.float64)
    for _ in range(steps):
        delta = delta + 0.01 * (found.gradient + (hessian @ delta[:, :, None]).squeeze(2))

    assert (found.ascent(0.01, steps) - delta).abs().max() < 1e-10


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-9, 1e-4, 0.9e-3, 1.1e-3, 1.0, 40.0])
def test_the_closed_form_holds_for_curvatures_of_every_size(size):
    steps, a = 12, 1.0
    row = torch.tensor([[[size**0.5, 0.0]]], dtype=torch.float64)
    gradient = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    lone = Factor(row, torch.tensor([[size]], dtype=torch.float64), one, gradient, gradient)

    exact = sum((1 + a * size) ** step for step in range(steps))  # the geometric series

    assert torch.allclose(lone.ascent(a, steps), torch.tensor([[exact, steps]], dtype=torch.float64), rtol=1e-9)


@pytest.mark.parametrize("steps", [2, 3, 12, 40])
def test_the_series_for_small_curvatures_is_the_binomial_one(steps):
    """(((1 + a l)^m - 1) / l - a m) / l = sum over k >= 2 of C(m, k) a^k l^(k - 2), in exact fractions."""
    a = Fraction(1, 2)
    sizes = [
        Fraction(0),
        *(Fraction(1, 2000) / steps * part for part in (Fraction(1, 100), Fraction(1, 2), Fraction(39, 10))),
    ]
    exact = [sum(math.comb(steps, k) * a**k * size ** (k - 2) for k in range(2, steps + 1)) for size in sizes]

    found = _excess(torch.tensor([[float(size) for size in sizes]], dtype=torch.float64), float(a), steps)

    assert found[0].tolist() == pytest.approx([float(value) for value in exact], rel=1e-13)


def test_an_eigenvalue_of_nothing_has_no_eigenvector():
    values = torch.tensor([[4.0, 4 * 1.5e-10, 4 * 0.9e-10, 0.0]], dtype=torch.float64)
    rows = torch.diag_embed(values.sqrt())
    eye = torch.eye(4, dtype=torch.float64)[None]
    found = Factor(rows, values, eye, rows[:, 0], rows[:, 0]).vectors(4)

    assert torch.allclose(found[0, :2], eye[0, :2])
    assert (found[0, 2:] == 0).all()


def test_an_example_that_overflows_is_nan_and_leaves_the_others_alone(images):
    model = network()
    expected = factor(model, images, LABELS).values
    images[2] = torch.inf

    found = factor(model, images, LABELS).values

    assert found[2].isnan().all()
    kept = torch.arange(7) != 2
    assert torch.allclose(found[kept], expected[kept], atol=1e-12)
