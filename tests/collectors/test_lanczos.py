"""Lanczos, trace and density against matrices whose spectrum is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advbench.collectors.lanczos import density, eigh, lanczos, trace

DTYPE = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE)


def with_spectrum(values: Tensor, seed: int = 1) -> Tensor:
    """Symmetric matrices (B, D, D) with eigenvalues `values` (B, D) in a random frame."""
    frame = torch.linalg.qr(draw(*values.shape, values.shape[-1], seed=seed)).Q
    return frame @ (values[:, :, None] * frame.mT)


def times(matrix: Tensor, count: list[int] | None = None):
    def multiply(vectors: Tensor) -> Tensor:
        if count is not None:
            count.append(len(vectors))
        return (matrix @ vectors[:, :, None]).squeeze(2)

    return multiply


def test_all_the_steps_give_the_whole_spectrum_and_its_frame():
    values = draw(3, 20).sort(dim=1, descending=True).values
    matrix = with_spectrum(values)

    found = lanczos(times(matrix), draw(3, 20, seed=2), steps=50, top=20, tolerance=0)

    assert torch.allclose(found.values, values, atol=1e-10)
    vectors = found.vectors(4)
    assert torch.allclose(vectors @ vectors.mT, torch.eye(4, dtype=DTYPE).expand(3, 4, 4), atol=1e-10)
    assert torch.allclose(matrix @ vectors.mT, vectors.mT * values[:, None, :4], atol=1e-9)


def test_it_stops_when_the_top_is_known_to_the_tolerance_and_the_bound_holds():
    values = (0.9 ** torch.arange(300, dtype=DTYPE)).expand(2, -1)
    count: list[int] = []

    found = lanczos(times(with_spectrum(values), count), draw(2, 300, seed=3), steps=300, top=3, tolerance=1e-4)

    assert len(count) < 60
    off = (found.values[:, :3] - values[:, :3]).abs()
    assert (off <= 1e-4).all()
    assert (off <= 2 * found.errors[:, :3] + 1e-12).all()


@pytest.mark.parametrize(
    "values",
    [
        [0.0] * 12,
        [2.0] * 12,
        [3.0, 3.0, 1.0, 1.0, *[0.0] * 8],
        [5.0, *[0.0] * 11],
        [1.0, *[-1.0] * 11],
    ],
    ids=["nothing", "identity", "twice", "rank one", "mirror"],
)
def test_equal_eigenvalues_and_low_ranks_are_found_as_often_as_they_are_there(values):
    matrix = with_spectrum(torch.tensor([values], dtype=DTYPE))

    found = lanczos(times(matrix), draw(1, 12, seed=4), steps=12, top=12, tolerance=0)

    assert torch.allclose(found.values, torch.tensor([sorted(values, reverse=True)], dtype=DTYPE), atol=1e-10)


def test_a_matrix_s_result_does_not_depend_on_its_company():
    easy, hard = torch.zeros(1, 60, dtype=DTYPE), (1 + torch.arange(60, dtype=DTYPE)).log()[None]
    easy[0, 0] = 1
    matrix = with_spectrum(torch.cat([easy, hard]))
    start = draw(2, 60, seed=5)

    both = lanczos(times(matrix), start, steps=40, top=2, tolerance=1e-8, every=4)
    alone = [
        lanczos(times(matrix[i : i + 1]), start[i : i + 1], steps=40, top=2, tolerance=1e-8, every=4) for i in (0, 1)
    ]

    for i in (0, 1):
        kept = alone[i].values.shape[1]
        assert torch.allclose(both.values[i, :kept], alone[i].values[0], atol=1e-12)
        assert (both.values[i, kept:] == 0).all()
        assert torch.allclose(both.basis[i, :kept], alone[i].basis[0], atol=1e-9)
    assert alone[0].values.shape[1] < alone[1].values.shape[1]


def test_the_trace_is_unbiased_and_its_error_is_honest():
    values = 1 / (1 + torch.arange(80, dtype=DTYPE))
    matrix = with_spectrum(values[None])
    found = lanczos(times(matrix), draw(1, 80, seed=6), steps=8, top=8, tolerance=0)
    probes = list(draw(2000, 1, 80, seed=7).sign())

    estimate, error = trace(times(matrix), found, probes)

    assert abs(float(estimate - values.sum())) < 4 * float(error)
    # The Krylov space holds most of it: plain Hutchinson has a standard deviation of sqrt(2 (|H|^2 - |diag|^2)).
    plain = (2 * (matrix.square().sum() - matrix[0].diagonal().square().sum()) / 2000).sqrt()
    assert float(error) < 0.5 * float(plain)


def test_the_trace_is_exact_where_the_krylov_space_is_everything():
    matrix = with_spectrum(draw(2, 10))
    found = lanczos(times(matrix), draw(2, 10, seed=8), steps=10, top=10, tolerance=0)

    estimate, error = trace(times(matrix), found, list(draw(3, 2, 10, seed=9).sign()))

    assert torch.allclose(estimate, matrix.diagonal(dim1=1, dim2=2).sum(1), atol=1e-10)
    assert float(error.max()) < 1e-10


def test_the_density_integrates_to_one_and_is_that_of_the_known_spectrum():
    # A third of the eigenvalues near -1, two thirds spread over [0, 2].
    values = torch.cat([torch.full((300,), -1.0, dtype=DTYPE), torch.linspace(0, 2, 600, dtype=DTYPE)])
    runs = [
        lanczos(lambda v: v * values, draw(1, 900, seed=seed), steps=40, top=1, tolerance=0) for seed in range(10, 30)
    ]
    ritz, weights = (torch.cat([getattr(run, name) for run in runs]) for name in ("values", "weights"))
    grid = torch.linspace(-2, 3, 2001, dtype=DTYPE)

    found = density(ritz, weights, grid, 0.05)

    exact = density(values[None], torch.full((1, 900), 1 / 900, dtype=DTYPE), grid, 0.05)
    step = float(grid[1] - grid[0])
    assert float(found.sum() * step) == pytest.approx(1, abs=1e-6)
    assert float((found.cumsum(0) - exact.cumsum(0)).abs().max() * step) < 0.03
    assert torch.allclose(weights.sum(1), torch.ones(20, dtype=DTYPE))


@pytest.mark.parametrize("steps", [1, 2, 5, 9])
def test_an_error_is_the_residual_or_its_square_over_the_gap(steps: int):
    matrix = with_spectrum(draw(2, 20))
    found = lanczos(times(matrix), draw(2, 20, seed=2), steps=steps, top=steps, tolerance=0)

    vectors = found.vectors(steps)
    residual = (vectors @ matrix - found.values[:, :, None] * vectors).norm(dim=2)
    expected = residual.clone()
    for row in range(2):
        for place in range(steps):
            others = [abs(float(found.values[row, place] - other)) for other in found.values[row].tolist()]
            gap = min([apart for i, apart in enumerate(others) if i != place], default=0) - float(residual[row, place])
            if gap > residual[row, place]:
                expected[row, place] = residual[row, place] ** 2 / gap
    torch.testing.assert_close(found.errors, expected, rtol=1e-7, atol=1e-12)


def test_without_probes_the_trace_is_that_of_the_space_and_one_probe_knows_no_error():
    matrix = with_spectrum(draw(2, 12))
    found = lanczos(times(matrix), draw(2, 12, seed=3), steps=4, top=4, tolerance=0)

    inside, none = trace(times(matrix), found, [])
    outside, unknown = trace(times(matrix), found, [draw(2, 12, seed=4).sign()])

    assert torch.equal(inside, found.values.sum(1))
    assert none.tolist() == [0, 0]
    assert not torch.equal(outside, inside)
    assert unknown.isnan().all()


def test_a_density_is_a_mixture_of_normal_ones():
    values, weights = torch.tensor([[0.3, -1.0], [2.0, 0.5]], dtype=DTYPE), torch.tensor([[0.25, 0.75], [0.9, 0.1]])
    grid = torch.linspace(-3, 3, 41, dtype=DTYPE)

    found = density(values, weights.to(DTYPE), grid, 0.2)

    bells = [torch.distributions.Normal(value, 0.2).log_prob(grid).exp() for value in values.flatten()]
    expected = sum(weight * bell for weight, bell in zip(weights.flatten().tolist(), bells, strict=True)) / 2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_a_matrix_with_one_entry_that_is_no_number_has_no_values_and_stops_no_other():
    matrices = with_spectrum(draw(3, 4))
    expected = torch.linalg.eigvalsh(matrices)
    matrices[1, 2, 0] = torch.inf

    values, vectors = eigh(matrices)

    assert values[1].isnan().all()
    assert torch.allclose(values[[0, 2]], expected[[0, 2]])
    assert torch.allclose(matrices[[0, 2]] @ vectors[[0, 2]], vectors[[0, 2]] * values[[0, 2], None])
