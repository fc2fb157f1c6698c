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
from torch.nn.functional import pad

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
            return _onto_l1_ball_in_box(x, self.eps)

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

    def farthest(self, x: Tensor, grad: Tensor) -> Tensor:
        """The point of ball and box around x where <grad, .> is largest: exact in every norm. (N, ...) -> (N, ...)."""
        if self.norm == "L2":
            return _steepest_l2_step_in_box(x, grad, self.eps)
        return self.project(self.step(x, grad, self.eps), x)

    def fosc(self, x_adv: Tensor, x: Tensor, grad: Tensor, *, box: bool = False) -> Tensor:
        """First-order stationarity: how much the linearised loss could still gain in the ball around x, (N,).

        max <grad, z - x_adv> over all z of the ball, which is eps * dual_norm(grad) - <x_adv - x, grad>; in nats, for
        `grad` of each example's own cross-entropy at x_adv (a batch mean would divide it). At least 0 in the ball, and
        0 at a stationary point. Wang et al., ICML 2019 (arXiv 2112.08304); the gap of Frank and Wolfe.

        With `box` z is in the pixel box too. Without, pixels that want to leave the box keep the number above 0.
        """
        if box:
            return ((self.farthest(x, grad) - x_adv) * grad).flatten(1).sum(1)
        return self.eps * self.dual_norm(grad) - ((x_adv - x) * grad).flatten(1).sum(1)

    @property
    def tolerance(self) -> float:
        """By how much a candidate's distance may pass eps: the rounding of fp32 pixels."""
        return 1e-6 + 1e-5 * self.eps

    def contains(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Which candidates are allowed, (N,) bool; NaN never is.

        Up to `tolerance`, 1e-6 + 1e-5 * eps; differences are taken in float64
        so that the check itself adds none. In L1 the roundings of all moved pixels add up, up to 2^-25 each in
        [0, 1], and need not cancel: a projection shortens every pixel's way by the same number.
        """
        x_adv, x = x_adv.double(), x.double()
        tolerance = self.tolerance
        in_box = ((x_adv >= -tolerance) & (x_adv <= 1 + tolerance)).flatten(1).all(1)
        rounding = 2**-25 * (x_adv != x).flatten(1).sum(1) if self.norm == "L1" else 0
        return in_box & (self.size(x_adv - x) <= self.eps + tolerance + rounding)


def _onto_l1_ball_in_box(x: Tensor, eps: float) -> Callable[[Tensor], Tensor]:
    """The exact projection on the L1 ball around x, cut with [0, 1]. Croce and Hein, ICML 2021 (arXiv 2103.01208).

    By the KKT conditions each pixel's way is shortened by the same `shrink` and then cut at the box,
    min(max(way - shrink, 0), room), and the sum of these is a piecewise linear function of `shrink`: its knots are
    sorted, and the piece where it equals eps is solved. In float64, so that only the result is rounded.
    """
    centre = x.double().flatten(1)
    pixels = centre.shape[1]

    def onto(x_adv: Tensor) -> Tensor:
        delta = x_adv.double().flatten(1) - centre
        way = delta.abs()
        room = torch.minimum(way, torch.where(delta > 0, 1 - centre, centre))
        # As shrink falls, a pixel starts to move at the knot `way` and is at its bound from the knot `way - room` on.
        knots, order = torch.cat([way, way - room], 1).sort(dim=1, descending=True)
        moving = torch.where(order < pixels, 1.0, -1.0).double().cumsum(1)
        spent = pad((moving[:, :-1] * -knots.diff(dim=1)).cumsum(1), (1, 0))
        piece = torch.searchsorted(spent, spent.new_full((len(spent), 1), eps)).clamp(1, 2 * pixels - 1) - 1
        shrink = knots.gather(1, piece) - (eps - spent.gather(1, piece)) / moving.gather(1, piece)
        shrink = torch.where(room.sum(1, keepdim=True) <= eps, 0, shrink)
        nearest = centre + delta.sign() * (way - shrink).clamp_min(0).minimum(room)
        return nearest.to(x_adv.dtype).view_as(x_adv)

    return onto


def _steepest_l2_step_in_box(x: Tensor, grad: Tensor, eps: float) -> Tensor:
    """The maximum of <grad, z> over the L2 ball around x, cut with [0, 1].

    By the KKT conditions pixels travel in proportion to |grad| until they are at the box: their ways are
    min(time * |grad|, room). The square of their norm grows piece by piece: the arrivals are sorted, and the piece
    where it equals eps^2 is solved for the time. In float64, so that only the result is rounded.
    """
    place, slope = x.double().flatten(1), grad.double().flatten(1)
    tiny = torch.finfo(slope.dtype).tiny  # keeps 0 / 0 at 0
    room = torch.where(slope > 0, 1 - place, place).clamp_min(0) * (slope != 0)
    speed = slope.abs().clamp_min(tiny)
    arrival, order = (room / speed).sort(dim=1)
    done = pad(room.gather(1, order).square().cumsum(1), (1, 0))[:, :-1]
    # The speed of those still under way, summed from the slowest to arrive: a difference of sums would cancel.
    moving = speed.gather(1, order).square().flip(1).cumsum(1).flip(1).sqrt()
    spent = done + (arrival * moving).square()
    # A ball that holds the whole box is in the last piece too: later than all arrivals, everyone is at the box.
    piece = torch.searchsorted(spent, spent.new_full((len(spent), 1), eps**2)).clamp_max(spent.shape[1] - 1)
    left = (eps**2 - done.gather(1, piece)).clamp_min(0).sqrt()
    time = left / moving.gather(1, piece).clamp_min(tiny)
    return (place + slope.sign() * (time * speed).minimum(room)).to(x.dtype).view_as(x)
