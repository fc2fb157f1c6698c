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

Norm = Literal["Linf", "L2", "L1"]


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Values (N,) shaped so that they multiply a batch `like` (N, ...) example by example."""
    return values.view(-1, *[1] * (like.dim() - 1))


DUAL: dict[Norm, Norm] = {"Linf": "L1", "L2": "L2", "L1": "Linf"}


def _size(norm: Norm, values: Tensor) -> Tensor:
    flat = values.flatten(1)
    if norm == "L2":
        return torch.linalg.vector_norm(flat, dim=1)
    return flat.abs().amax(1) if norm == "Linf" else flat.abs().sum(1)


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
        return _size(self.norm, delta)

    def dual_norm(self, grad: Tensor) -> Tensor:
        """max <grad, d> over ||d|| <= 1, example by example: the L1 norm for Linf, L2 for L2, Linf for L1."""
        return _size(DUAL[self.norm], grad)

    def steepest_ascent(self, grad: Tensor) -> Tensor:
        """The unit-norm direction that attains `dual_norm`; zero where the gradient is zero.

        In L1 it is one coordinate, the first of the largest.
        """
        if self.norm == "Linf":
            return grad.sign()
        if self.norm == "L1":
            flat = grad.flatten(1)
            best = flat.abs().argmax(1, keepdim=True)
            return torch.zeros_like(flat).scatter_(1, best, flat.gather(1, best).sign()).view_as(grad)
        # The largest entry goes first: squares of a saturated model's gradients (1e-25) would underflow to a norm
        # of 0. The floor keeps 0 / 0 at 0.
        tiny = torch.finfo(grad.dtype).tiny
        grad = grad / per_example(grad.flatten(1).abs().amax(1).clamp_min(tiny), grad)
        return grad / per_example(self.size(grad).clamp_min(tiny), grad)

    def step(self, x_adv: Tensor, grad: Tensor, size: float) -> Tensor:
        """x_adv moved by a step of `size` along the steepest ascent direction; Linf and L2 may leave the box.

        In L1 a pixel cannot move farther than to the box, so a step of more than one pixel's worth goes on with the
        next steepest coordinate: the exact maximum of <grad, s> over ||s||_1 <= size with x_adv + s in the box.
        """
        if self.norm != "L1":
            return x_adv + size * self.steepest_ascent(grad)
        flat, place = grad.flatten(1), x_adv.flatten(1)
        room = torch.where(flat > 0, 1 - place, place).clamp_min(0) * (flat != 0)
        order = flat.abs().argsort(dim=1, descending=True, stable=True)
        steepest = room.gather(1, order)
        spent = steepest.cumsum(1) - steepest
        taken = torch.zeros_like(room).scatter_(1, order, (size - spent).clamp_min(0).minimum(steepest))
        return x_adv + (flat.sign() * taken).view_as(x_adv)

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` around fixed x: the bounds are computed once, for loops that project often."""
        if self.norm == "Linf":
            low, high = (x - self.eps).clamp_min_(0), (x + self.eps).clamp_max_(1)
            return lambda x_adv: torch.clamp(x_adv, low, high)
        if self.norm == "L1":
            return lambda x_adv: _onto_l1(x_adv, x, self.eps)

        def onto_ball(x_adv: Tensor) -> Tensor:
            delta = x_adv - x
            shrink = (self.eps / self.size(delta).clamp_min(1e-30)).clamp_max(1)
            return (x + delta * per_example(shrink, x)).clamp(0, 1)

        return onto_ball

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """A point of both the ball and the box: the exact nearest one for Linf and L1.

        For L2 the box comes second, as in the field's PGD: since x lies in the box, clipping only shortens
        the perturbation, so the result is in both sets, but it need not be the nearest such point.
        """
        return self.projection(x)(x_adv)

    def random_start(self, x: Tensor, noise: Noise, *, box: bool = True) -> Tensor:
        """A point drawn uniformly from the ball, then clipped to the pixel box unless `box` is false."""
        if self.norm == "Linf":
            start = x + self.eps * noise.uniform(x)
        elif self.norm == "L1":
            # Signed exponentials over their sum and one more: even in the ball (Barthe et al., Ann. Probab. 2005).
            coordinates, more = noise.uniform(x), noise.uniform(x.flatten(1)[:, :1]).squeeze(1)
            sizes, rest = (-values.abs().clamp_min(1e-30).log() for values in (coordinates, more))
            share = self.eps / (sizes.flatten(1).sum(1) + rest)
            start = x + coordinates.sign() * sizes * per_example(share, x)
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
        so that the check itself adds none. L1 sums the rounding of every pixel, up to 2^-25 each.
        """
        x_adv, x = x_adv.double(), x.double()
        tolerance = 1e-6 + 1e-5 * self.eps
        in_box = ((x_adv >= -tolerance) & (x_adv <= 1 + tolerance)).flatten(1).all(1)
        pixels = math.prod(x.shape[1:])
        return in_box & (self.size(x_adv - x) <= self.eps + tolerance + (pixels * 2**-25 if self.norm == "L1" else 0))


def _onto_l1(x_adv: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest point of the L1 ball around x and the box, both (N, ...): Croce and Hein, ICML 2021 (2103.01208).

    It moves each coordinate by min(max(|u| - shrink, 0), room), u what was asked for and room what the box allows;
    their sum falls in straight pieces as `shrink` grows, so the sorted ends of the pieces give it in closed form.
    """
    asked = (x_adv - x).flatten(1).double()
    length, place = asked.abs(), x.flatten(1).double()
    room = torch.where(asked > 0, 1 - place, place).clamp_min(0)
    low = (length - room).clamp_min(0)  # a coordinate starts to give way here, and has no length left at `length`
    ends, order = torch.cat([low, length], 1).sort(1)
    pace = torch.cat([torch.ones_like(low), -torch.ones_like(low)], 1).gather(1, order).cumsum(1)
    total = length.minimum(room).sum(1, keepdim=True)
    gaps = ends.diff(dim=1) * pace[:, :-1]
    lengths = torch.cat([total, total - gaps.cumsum(1)], 1)  # the norm that is left at each end
    # The last end that leaves more than eps; from there the norm falls by `pace` for each unit of `shrink`.
    last = (lengths > eps).sum(1, keepdim=True).sub(1).clamp_min(0)
    shrink = ends.gather(1, last) + (lengths.gather(1, last) - eps) / pace.gather(1, last).clamp_min(1)
    shrink = torch.where(total > eps, shrink, 0)
    moved = asked.sign() * (length - shrink).clamp_min(0).minimum(room)
    return (x + moved.to(x.dtype).view_as(x)).clamp(0, 1)
