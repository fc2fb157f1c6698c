"""Eigenvalues, trace and spectral density of symmetric matrices that are known by their products alone.

All work on B matrices of size D at once: vectors are (B, D), and `multiply` maps them row by row. Lanczos with full
reorthogonalisation: Golub and Van Loan, Matrix Computations, section 10.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Multiply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Krylov:
    """What m products have shown of B symmetric matrices."""

    values: Tensor
    """Ritz values (B, m), largest first."""
    weights: Tensor
    """(B, m): squared first entries of the tridiagonal matrix's eigenvectors: the start vector's share in each."""
    errors: Tensor
    """(B, m): a bound on how far each Ritz value lies from an eigenvalue: min(residual, residual^2 / gap)."""
    basis: Tensor
    """Orthonormal rows (B, m, D)."""
    rotation: Tensor
    """(B, m, m): column i has the coefficients of Ritz vector i in the basis."""

    def vectors(self, count: int) -> Tensor:
        """The Ritz vectors of the largest values, (B, count, D)."""
        return self.rotation[:, :, :count].mT @ self.basis


def lanczos(multiply: Multiply, start: Tensor, *, steps: int, top: int, tolerance: float, every: int = 1) -> Krylov:
    """At most `steps` products, fewer once the `top` largest values of all B matrices are known.

    A value is known when its error is at most `tolerance` times the largest |value| of its matrix; that is looked at
    `every` so many steps. A matrix whose values are known is left at that, whatever the others still need; its rows
    are filled up with zeros. `start` (B, D) should be random: a direction in which it has nothing is not found. The
    small matrices are float64.
    """
    count, size = start.shape
    steps, top = min(steps, size), min(top, size)
    wide: dict[str, Any] = {"dtype": torch.float64, "device": start.device}
    tiny, eps = torch.finfo(start.dtype).tiny, torch.finfo(start.dtype).eps
    basis = start.new_empty(count, steps, size)
    diagonal, below = torch.zeros(count, steps, **wide), torch.zeros(count, steps, **wide)
    values, errors = torch.zeros(count, steps, **wide), torch.zeros(count, steps, **wide)
    rotation, open_ = torch.zeros(count, steps, steps, **wide), torch.ones(count, dtype=torch.bool, device=start.device)
    basis[:, 0] = start / start.norm(dim=1, keepdim=True).clamp_min(tiny)
    scale, taken = torch.zeros(count, **wide), steps
    for step in range(steps):
        known = basis[:, : step + 1]
        product = multiply(basis[:, step])
        scale = torch.maximum(scale, product.norm(dim=1).double())
        diagonal[:, step] = (product * basis[:, step]).sum(1)
        rest = _outside(_outside(product, known), known)
        # Nothing left: the start lies in an invariant space, which is now known. It goes on in a new direction.
        exhausted = rest.norm(dim=1) <= 100 * eps * scale
        below[:, step] = torch.where(exhausted, 0, rest.norm(dim=1))
        now = step + 1
        if now == steps or (now >= top and now % every == 0):
            v, r, e = _ritz(diagonal, below, now)
            done = open_ & ((e[:, :top] <= tolerance * v.abs().amax(1, keepdim=True)).all(1) | (now == steps))
            values[done, :now], rotation[done, :now, :now], errors[done, :now] = v[done], r[done], e[done]
            basis[done, now:] = 0
            open_ = open_ & ~done
            if not open_.any():
                taken = now
                break
        if exhausted.any():
            turned = start[exhausted].roll(now, 1)
            rest[exhausted] = _outside(_outside(turned, known[exhausted]), known[exhausted])
        basis[:, now] = rest / rest.norm(dim=1, keepdim=True).clamp_min(tiny) * open_[:, None]
    turn = rotation[:, :taken, :taken]
    return Krylov(values[:, :taken], turn[:, 0].square(), errors[:, :taken], basis[:, :taken], turn.to(start.dtype))


def _outside(vector: Tensor, basis: Tensor) -> Tensor:
    """What of vectors (B, D) lies outside the span of orthonormal rows (B, m, D)."""
    return vector - (basis.mT @ (basis @ vector[:, :, None])).squeeze(2)


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """torch.linalg.eigh of (B, m, m); a matrix that overflowed has values of NaN and does not stop the others."""
    whole = matrices.isfinite().flatten(1).all(1)
    values, vectors = torch.linalg.eigh(torch.where(whole[:, None, None], matrices, 0))
    return torch.where(whole[:, None], values, torch.nan), vectors


def _ritz(diagonal: Tensor, below: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ritz values (B, m), largest first, eigenvectors (B, m, m) and error bounds (B, m)."""
    side = below[:, : steps - 1]
    matrix = torch.diag_embed(diagonal[:, :steps])
    matrix = matrix + torch.diag_embed(side, 1) + torch.diag_embed(side, -1)
    values, rotation = (found.flip(-1) for found in eigh(matrix))
    residual = below[:, steps - 1 : steps] * rotation[:, -1].abs()
    apart = (values[:, :, None] - values[:, None, :]).abs()
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    # A lone value knows of no gap.
    gap = apart.amin(2) - residual if steps > 1 else torch.zeros_like(residual)
    return values, rotation, torch.where(gap > residual, residual.square() / gap, residual)


def trace(multiply: Multiply, found: Krylov, probes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The traces (B,) and their standard errors (B,), with one more product for each probe (B, D) of +1 and -1.

    Exact on the Krylov space, and Hutchinson's estimate z^T H z on what is outside of it, where little is left:
    Hutch++, Meyer, Musco, Musco and Woodruff, SOSA 2021 (arXiv 2010.09649), with a Krylov space for its sketch. Probes
    must be independent of the start vector; none of them means nothing outside.
    """
    inside = found.values.sum(1)
    if not probes:
        return inside, torch.zeros_like(inside)
    rests = [_outside(probe, found.basis) for probe in probes]
    samples = torch.stack([(rest * multiply(rest)).sum(1).double() for rest in rests])
    error = samples.std(0) / len(probes) ** 0.5 if len(probes) > 1 else torch.full_like(inside, torch.nan)
    return inside + samples.mean(0), error


def density(values: Tensor, weights: Tensor, grid: Tensor, width: float) -> Tensor:
    """The spectral density on `grid` (G,) of Ritz values and weights (R, m) of R random starts; it integrates to 1.

    Stochastic Lanczos quadrature, broadened by Gaussians of standard deviation `width`: Ghorbani, Krishnan and Xiao,
    ICML 2019 (arXiv 1901.10159), section 2.
    """
    bells = torch.exp(-((grid[:, None] - values.flatten()[None]) ** 2) / (2 * width**2))
    return (bells * weights.flatten()).sum(1) / (len(values) * width * (2 * torch.pi) ** 0.5)
