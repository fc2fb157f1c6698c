"""The Hessian of an example's cross-entropy to its own pixels: exact where the network is piecewise linear.

There H_x = J^T (diag p - p p^T) J with J = d logits / dx: positive semidefinite, of rank C - 1 at most. Cheng et al.
2022 (arXiv 2205.15130), section 3. Logits count only up to a constant, so J may be taken relative to the most likely
class t: C - 1 vector-Jacobian products D, with the other classes' probabilities q, give H = D^T (diag q - q q^T) D.
And diag q - q q^T = A A^T for A = diag(sqrt q) - q sqrt(q)^T / (1 + sqrt p_t), so H = F^T F for F = A^T D, whose
small Gram matrix has the spectrum. Nothing cancels, however sure the model is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advbench.collectors.base import refusal
from advbench.collectors.lanczos import Multiply, eigh
from advbench.losses import cross_entropy

FAINT = 1e-10
"""Eigenvalues below this share of the largest are rounding, and have no eigenvector that means something."""


def piecewise_linear(model: nn.Module, x: Tensor, direction: Tensor) -> bool:
    """Whether the logits are linear around each x (B, C, H, W), as those of ReLU networks are.

    Asked of the gradient of a random combination of the logits, `direction` (classes,): that of a linear function does
    not change, and its own gradient is exactly zero. The model's parameters must be frozen. Raises NotApplicable where
    the model cannot be differentiated twice, and so does not tell.
    """
    x = x.detach().requires_grad_()
    # Were the direction a constant, a function whose backward pass is not differentiable would look like a linear one.
    direction = direction.detach().requires_grad_()
    with torch.enable_grad():
        slope = torch.autograd.grad((model(x) @ direction).sum(), x, create_graph=True)[0]
        try:
            slope.square().sum().backward()
        except RuntimeError as error:
            raise refusal(error, "cannot be differentiated twice") from None
    return x.grad is None or not bool((x.grad != 0).any())


@dataclass(frozen=True)
class Factor:
    """B exact Hessians H = F^T F, by the singular value decomposition of F."""

    rows: Tensor
    """F, (B, C - 1, D)."""
    values: Tensor
    """Eigenvalues (B, C - 1), largest first, float64, in nats per squared pixel unit."""
    turn: Tensor
    """(B, C - 1, C - 1): eigenvectors of F F^T in columns, in F's number format."""
    gradient: Tensor
    """Of the cross-entropy, (B, D)."""
    logits: Tensor

    def vectors(self, count: int) -> Tensor:
        """The first eigenvectors (B, count, D); zero where the eigenvalue is nothing."""
        lengths = self.values[:, :count].sqrt()
        there = self.values[:, :count] > FAINT * self.values[:, :1]
        scale = torch.where(there, 1 / lengths, 0).to(self.rows.dtype)
        return scale[:, :, None] * (self.turn[:, :, :count].mT @ self.rows)

    def ascent(self, step_size: float, steps: int) -> Tensor:
        """Where `steps` of un-normalised gradient ascent on the loss's quadratic model lead, (B, D), from 0.

        sum_i ((1 + a lambda_i)^m - 1) / lambda_i <g, v_i> v_i, and a m of the gradient outside of all v_i: Cheng et al.
        2022, theorem 1. As a m g + F^T h(F F^T) F g with h(lambda) = (((1 + a lambda)^m - 1) / lambda - a m) / lambda,
        it needs no eigenvector of a vanishing eigenvalue.
        """
        h = _excess(self.values, step_size, steps).to(self.rows.dtype)
        along = self.turn.mT @ (self.rows @ self.gradient[:, :, None])
        bent = self.rows.mT @ (self.turn @ (h[:, :, None] * along))
        return step_size * steps * self.gradient + bent.squeeze(2)


def _excess(values: Tensor, a: float, m: int) -> Tensor:
    """(((1 + a l)^m - 1) / l - a m) / l of values l >= 0, by its series where that would cancel."""
    safe = torch.where(a * m * values > 1e-3, values, 1)
    closed = (torch.expm1(m * torch.log1p(a * safe)) / safe - a * m) / safe
    pairs = a**2 * m * (m - 1) / 2
    triples = pairs * a * (m - 2) / 3
    series = pairs + values * triples * (1 + values * a * (m - 3) / 4 * (1 + values * a * (m - 4) / 5))
    return torch.where(a * m * values > 1e-3, closed, series)


def factor(model: nn.Module, x: Tensor, y: Tensor) -> Factor:
    """The exact Hessians of a piecewise linear `model` at x (B, C, H, W), labels (B,), from C - 1 backward passes."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
    best = logits.detach().argmax(1, keepdim=True)
    # Every class but the best, (B, C - 1).
    others = torch.arange(logits.shape[1] - 1, device=x.device)
    others = others + (others >= best)
    minus = torch.zeros_like(logits).scatter_(1, best, -1)
    slopes = x.new_empty(len(x), others.shape[1], x[0].numel())
    for place in range(others.shape[1]):
        ask = minus.scatter(1, others[:, place : place + 1], 1)
        last = place + 1 == others.shape[1]
        slopes[:, place] = torch.autograd.grad(logits, x, ask, retain_graph=not last)[0].flatten(1)
    chance = logits.detach().double().softmax(1)
    q, sure = chance.gather(1, others), chance.gather(1, best)
    mean = (q.to(x.dtype)[:, None] @ slopes).squeeze(1)
    # The slope of the label's own logit relative to the best one's: nothing where they are the same.
    own = (slopes * (others == y[:, None])[:, :, None]).sum(1)
    gradient = mean - own
    slopes -= mean[:, None] / (1 + sure.sqrt()).to(x.dtype)[:, :, None]
    slopes *= q.sqrt().to(x.dtype)[:, :, None]
    wide = slopes.double()
    values, turn = eigh(wide @ wide.mT)
    return Factor(slopes, values.flip(1).clamp_min(0), turn.flip(2).to(x.dtype), gradient, logits.detach())


def products(model: nn.Module, x: Tensor, y: Tensor) -> Multiply:
    """Hessian-vector products at x (B, C, H, W) for vectors (B, D), by double backward; the graph is kept."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = cross_entropy(model(x), y).sum()
        slope = torch.autograd.grad(loss, x, create_graph=True)[0]

    def multiply(vectors: Tensor) -> Tensor:
        return torch.autograd.grad(slope, x, vectors.view_as(x), retain_graph=True)[0].flatten(1)

    return multiply
