"""The shortest way onto a hyperplane within the pixel box, in each norm. Croce and Hein, ICML 2020 (1907.02044), eq. 4.

By the KKT conditions every coordinate moves against its weight, and what it may move is decided by one number: in Linf
all move equally far until they are at the box, in L2 in proportion to their weights, and in L1 those of the largest
weight go first, as far as the box lets them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from advbench.threat import Norm


def onto_hyperplane(norm: Norm, x: Tensor, w: Tensor, gap: Tensor) -> Tensor:
    """The shortest move, (..., d), that takes x (..., d) of the box [0, 1]^d to <w, x + move> = <w, x> - gap inside it.

    w (..., d) are the weights and gap (...) how far <w, x> lies above the plane (below: negative); leading dimensions
    broadcast. Where the plane misses the box, the move ends in the corner that comes nearest to it.
    """
    weight, rest = w.abs(), gap.abs().unsqueeze(-1)
    towards = w.sign() * -gap.sign().unsqueeze(-1)
    room = torch.where(towards > 0, 1 - x, x)
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
    solution, and has it exactly as soon as a step crosses no arrival at the box: after three to six steps, of a few
    sums each, where sorting the arrivals costs more than a small model.
    """
    real = torch.finfo(room.dtype)
    # Relative to the largest weight: squares of a saturated model's gradients (1e-25) would underflow.
    pace = torch.ones_like(weight) if norm == "Linf" else weight / weight.amax(-1, keepdim=True).clamp_min(real.tiny)
    arrival, speed, full = room / pace.clamp_min(real.tiny), weight * pace, weight * room
    time = torch.zeros_like(rest).expand(*room.shape[:-1], 1)
    for _ in range(room.shape[-1]):
        moving = arrival > time
        spent = torch.where(moving, 0, full).sum(-1, keepdim=True)
        gained = torch.where(moving, speed, 0).sum(-1, keepdim=True)
        # Where the plane misses the box nothing is left to move: the time is as long as numbers go.
        later = ((rest - spent) / gained.clamp_min(real.tiny)).clamp_max(real.max)
        if not (later > time).any():
            break
        time = torch.maximum(time, later)
    return (time * pace).minimum(room)
