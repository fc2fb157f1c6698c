"""Threat models: what a perturbation may be, as the verbs that attacks are made of.

A norm ball of radius eps around each example, cut with the pixel box [0, 1]. Batches are (N, ...) float
tensors; every verb works example by example.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from advbench.seeds import Noise

Norm = Literal["Linf", "L2"]


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,) shaped so that they multiply a batch `like` (N, ...) example by example."""
    return values.view(-1, *[1] * (like.dim() - 1))


@dataclass(frozen=True)
class Threat:
    """Perturbations with ||x_adv - x||_norm <= eps and x_adv in [0, 1]; eps in pixel units."""

    norm: Norm
    eps: float

    def scaled(self, factor: float) -> Threat:
        """The same ball with radius `factor` * eps (an eps ramp, a robustness curve)."""
        return replace(self, eps=self.eps * factor)

    def size(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation, (N, ...) -> (N,)."""
        flat = delta.flatten(1)
        return flat.abs().amax(1) if self.norm == "Linf" else torch.linalg.vector_norm(flat, dim=1)

    def dual_norm(self, grad: Tensor) -> Tensor:
        """max <grad, d> over ||d|| <= 1, example by example: the L1 norm for Linf, the L2 norm for L2."""
        flat = grad.flatten(1)
        return flat.abs().sum(1) if self.norm == "Linf" else torch.linalg.vector_norm(flat, dim=1)

    def steepest_ascent(self, grad: Tensor) -> Tensor:
        """The unit-norm direction that attains `dual_norm`; zero where the gradient is zero."""
        if self.norm == "Linf":
            return grad.sign()
        # The largest entry goes first: squares of a saturated model's gradients (1e-25) would underflow to a norm
        # of 0. The floor keeps 0 / 0 at 0.
        tiny = torch.finfo(grad.dtype).tiny
        grad = grad / per_example(grad.flatten(1).abs().amax(1).clamp_min(tiny), grad)
        return grad / per_example(self.size(grad).clamp_min(tiny), grad)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` around fixed x: the bounds are computed once, for loops that project often."""
        if self.norm == "Linf":
            low, high = (x - self.eps).clamp_min_(0), (x + self.eps).clamp_max_(1)
            return lambda x_adv: torch.clamp(x_adv, low, high)

        def onto_ball(x_adv: Tensor) -> Tensor:
            delta = x_adv - x
            shrink = (self.eps / self.size(delta).clamp_min(1e-30)).clamp_max(1)
            return (x + delta * per_example(shrink, x)).clamp(0, 1)

        return onto_ball

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The ball, then the box. Exact nearest point for Linf, where both are boxes.

        For L2 the box comes second, as in the field's PGD: since x lies in the box, clipping only shortens
        the perturbation, so the result is in both sets, but it need not be the nearest such point.
        """
        return self.projection(x)(x_adv)

    def random_start(self, x: Tensor, noise: Noise, *, box: bool = True) -> Tensor:
        """A point drawn uniformly from the ball, then clipped to the pixel box unless `box` is false."""
        if self.norm == "Linf":
            start = x + self.eps * noise.uniform(x)
        else:
            direction = self.steepest_ascent(noise.normal(x))
            # A radius of U^(1/d) fills the volume of the ball evenly. U is one number an example.
            share = (noise.uniform(x.flatten(1)[:, :1]).squeeze(1) + 1) / 2
            radius = self.eps * share ** (1 / math.prod(x.shape[1:]))
            start = x + direction * per_example(radius, x)
        return start.clamp(0, 1) if box else start

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which candidates are allowed, (N,) bool; NaN never is.

        The tolerance is 1e-6 + 1e-5 * eps, the rounding of fp32 pixels; differences are taken in float64
        so that the check itself adds none.
        """
        x_adv, x = x_adv.double(), x.double()
        tolerance = 1e-6 + 1e-5 * self.eps
        in_box = ((x_adv >= -tolerance) & (x_adv <= 1 + tolerance)).flatten(1).all(1)
        return in_box & (self.size(x_adv - x) <= self.eps + tolerance)
