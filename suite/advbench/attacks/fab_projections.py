"""The shortest way onto a hyperplane within the pixel box. Croce and Hein, ICML 2020 (arXiv 1907.02044).

By the KKT conditions every coordinate moves against its weight, and what it may move is decided by one number: in Linf
all move equally far until they are at the box, in L2 in proportion to their weights, and in L1 those of the largest
weight go first, as far as the box lets them.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from advbench.threat import Norm

STEPS_AT_ONCE: Final = 4
"""Of Newton's method, before the device is asked whether that was enough: an accelerator waits for each question."""


def onto_hyperplane(norm: Norm, x: Tensor, w: Tensor, gap: Tensor) -> Tensor:
    """The shortest move, (..., d), that takes x (..., d) of the box [0, 1]^d to <w, x + move> = <w, x> - gap inside it.

    w (..., d) are the weights and gap (...) how far <w, x> lies above the plane (below: negative); leading dimensions
    broadcast. Where the plane misses the box, the move ends in the corner that comes nearest to it. (The authors'
    package does the same, but leaves coordinates with weights below 1e-8 where they are in L2 and L1.)
    """
    weight, rest = w.abs(), gap.abs().unsqueeze(-1)
    towards = w.sign() * -gap.sign().unsqueeze(-1)
    room = (towards.clamp_min(0) - x).abs()
    return towards * (_greedy(room, weight, rest) if norm == "L1" else _together(norm, room, weight, rest))


def _greedy(room: Tensor, weight: Tensor, rest: Tensor) -> Tensor:
    """How far each coordinate moves when the largest weights go first, until <weight, way> = rest."""
    order = weight.argsort(dim=-1, descending=True, stable=True)
    weight, order = weight.gather(-1, order).expand_as(room), order.expand_as(room)
    gain = weight * room.gather(-1, order)
    left = (rest - (gain.cumsum(-1) - gain)).clamp_min(0)
    way = left / weight.clamp_min(torch.finfo(weight.dtype).tiny)
    return torch.empty_like(room).scatter_(-1, order, way).minimum(room)


def _together(norm: Norm, room: Tensor, weight: Tensor, rest: Tensor) -> Tensor:
    """How far each moves when the ways are min(time * pace, room), at the time when <weight, way> = rest.

    <weight, way> is a concave, piecewise linear function of the time, so Newton's method from time 0 never passes the
    solution, and has it exactly as soon as a step crosses no arrival at the box: after two to five steps, of a few
    sums each, where sorting the arrivals would cost more than a small model.
    """
    real = torch.finfo(room.dtype)
    # Relative to the largest weight: squares of a saturated model's gradients (1e-25) would underflow.
    pace = torch.ones_like(weight) if norm == "Linf" else weight / weight.amax(-1, keepdim=True).clamp_min(real.tiny)
    arrival, speed, full = room / pace.clamp_min(real.tiny), weight * pace, weight * room
    time = before = torch.zeros_like(rest).expand(*room.shape[:-1], 1)
    moving = torch.empty_like(room)  # 0 or 1: sums of products are far faster than torch.where
    for _ in range(0, room.shape[-1], STEPS_AT_ONCE):
        for _ in range(STEPS_AT_ONCE):
            torch.gt(arrival, time, out=moving)
            spent = ((1 - moving) * full).sum(-1, keepdim=True)
            gained = (moving * speed).sum(-1, keepdim=True)
            # Where the plane misses the box nothing is left to move: the time is as long as numbers go.
            later = ((rest - spent) / gained.clamp_min(real.tiny)).clamp_max(real.max)
            time, before = torch.maximum(time, later), time
        if not (time > before).any():
            break
    return (time * pace).minimum(room)
