"""The changes that Square Attack tries: what a square looks like in each norm. arXiv 1912.00049; L1: arXiv 2103.01208.

Numbers are drawn in the order of the authors' package `pyautoattack`, so that a block of one example meets its very
candidates.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from itertools import groupby
from typing import ClassVar, Final

import torch
from torch import Tensor

from advbench.seeds import BlockNoise
from advbench.threat import Threat

CHUNK: Final = 64
"""Queries whose random numbers are drawn in one go."""


class Squares:
    """Candidates, one after the other, each a change of the best `point` of those who still stand.

    From one point nothing is asked twice, for a model without randomness would say the same again. Small images have
    few squares: of 5,000 queries on 8x8 pixels in Linf, some hundreds are new.
    """

    corners: ClassVar[int]
    """Squares a query."""
    flips: ClassVar[int]
    """Coins a query, beside one for each channel."""

    def __init__(self, x: Tensor, threat: Threat, noise: BlockNoise) -> None:
        self.x, self.threat, self.noise = x.contiguous(), threat, noise
        self.point = self.x
        self.layout: tuple[Tensor, ...] = ()
        """The queries at hand, (CHUNK, N, ...) each: the number of the change (CHUNK, N, 1), and what it stands for."""
        self.stamp = torch.ones(len(x), 1, dtype=torch.int32, device=x.device)
        """How often the point has moved, (N, 1)."""
        self.asked = self.stamp.new_zeros(len(x), 0)
        """For each change the stamp when it was last asked, (N, ...)."""

    def candidates(self, sides: Sequence[int]) -> Generator[tuple[Tensor, Tensor | None]]:
        """The start, then one for each side where it is new: candidates (n, C, H, W), and whose, (n,) or all (None)."""
        start = self.start()
        self.point = start.clone()
        self.accept(torch.arange(len(start), device=start.device), start)
        yield start, None
        for side, group in groupby(sides):
            queries = len(list(group))
            ranges = [max(size - side, 1) for size in self.x.shape[2:]] * self.corners
            ranges += [2] * (self.flips + self.x.shape[1])
            # To remember pays where queries are bound to meet again.
            remember = math.prod(ranges) <= 2 * queries
            self.asked = self.stamp.new_zeros(len(self.x), math.prod(ranges) if remember else 0)
            for first in range(0, queries, CHUNK):
                self._draw(min(CHUNK, queries - first), side, ranges)
                for query in range(len(self.layout[0])):
                    change, *numbers = (values[query] for values in self.layout)
                    candidate, whose = self._news(change, numbers) if remember else (self.change(*numbers), None)
                    if len(candidate):
                        yield candidate, whose

    def _draw(self, count: int, side: int, ranges: list[int]) -> None:
        """The changes of the next queries.

        As in the package a square never reaches the last row or column, unless it fills the image.
        """
        numbers = self.noise.uniform(self.x.new_empty(len(self.x), count, len(ranges))).transpose(0, 1)
        size = torch.tensor(ranges, device=self.x.device)
        drawn = ((numbers + 1) / 2 * size).long()
        weight = size.flip(0).cumprod(0).flip(0) // size
        change = (drawn * weight).sum(-1, keepdim=True)
        corners, coins = drawn.split([2 * self.corners, len(ranges) - 2 * self.corners], dim=-1)
        self.layout = (change, *self.lay(corners.unflatten(-1, (self.corners, 2)), coins, side))

    def _news(self, change: Tensor, numbers: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """A query's candidates without those that were asked before and those that change nothing; and whose."""
        new = (self.asked.gather(1, change) != self.stamp)[:, 0].nonzero()[:, 0]
        if not len(new):
            return self.x[:0], new
        self.asked.scatter_(1, change, self.stamp)
        candidate = self.change(*numbers)[new]
        moved = (candidate != self.point[new]).flatten(1).any(1).nonzero()[:, 0]
        return candidate[moved], new[moved]

    def accept(self, places: Tensor, points: Tensor) -> None:
        """Those at `places` (n,) go on from these points (n, C, H, W)."""
        self.point[places] = points
        self.stamp[places] += 1

    def keep(self, kept: Tensor) -> None:
        """Go on with those at the places `kept`; their numbers stay the same."""
        self.x, self.point, self.noise = self.x[kept], self.point[kept], self.noise.some(kept)
        self.layout = tuple(values[:, kept] for values in self.layout)
        self.asked, self.stamp = self.asked[kept], self.stamp[kept]

    def start(self) -> Tensor:
        raise NotImplementedError

    def lay(self, corners: Tensor, coins: Tensor, side: int) -> tuple[Tensor, ...]:
        """What `change` needs for queries with top left corners (K, N, corners, 2) and coins (K, N, flips + C)."""
        raise NotImplementedError

    def change(self, *numbers: Tensor) -> Tensor:
        """The candidates of everyone for a query that is laid out like this, (N, ...) each."""
        raise NotImplementedError


class Constant(Squares):
    """Linf: a square of one colour, every channel at its upper or its lower bound."""

    corners = 1
    flips = 0

    def __init__(self, x: Tensor, threat: Threat, noise: BlockNoise) -> None:
        super().__init__(x, threat, noise)
        self.low, self.high = (self.x - threat.eps).clamp_min_(0), (self.x + threat.eps).clamp_max_(1)

    def keep(self, kept: Tensor) -> None:
        super().keep(kept)
        self.low, self.high = self.low[kept], self.high[kept]

    def start(self) -> Tensor:
        """Vertical stripes of one pixel."""
        stripes = self.noise.uniform(self.x[:, :, :1]) > 0
        return torch.where(stripes, self.high, self.low)

    def lay(self, corners: Tensor, coins: Tensor, side: int) -> tuple[Tensor, ...]:
        row, column = (torch.arange(size, device=self.x.device) for size in self.x.shape[2:])
        top, left = corners.unbind(-1)
        rows = (row >= top) & (row < top + side)
        columns = (column >= left) & (column < left + side)
        return rows[:, :, None, :, None], columns[:, :, None, None, :], coins.bool()[..., None, None]

    def change(self, *numbers: Tensor) -> Tensor:
        rows, columns, up = numbers
        return torch.where(rows & columns, torch.where(up, self.high, self.low), self.point)


class Pyramids(Squares):
    """L2 and L1: two square pyramids of opposite signs, side by side, added to what a square holds.

    What they may spend there is what the square holds, what another square gives away, and what is left of eps.
    """

    corners = 2
    flips = 1

    def __init__(self, x: Tensor, threat: Threat, noise: BlockNoise) -> None:
        # The package's L1 stays this far inside, for the rounding of many pixels.
        super().__init__(x, threat if threat.norm == "L2" else threat.scaled(1 - 1e-6), noise)
        self.eps = threat.eps
        self.order = 2 if threat.norm == "L2" else 1
        self.inside = self.patterns = self.x
        self.left = self.x.new_empty(len(x), 1, 1)
        """Each channel's share of eps^order that the point does not use."""

    def accept(self, places: Tensor, points: Tensor) -> None:
        super().accept(places, points)
        used = self._content((points - self.x[places]).flatten(1))[..., None]
        self.left[places] = (self.eps**self.order - used).clamp_min_(0) / self.x.shape[1]

    def keep(self, kept: Tensor) -> None:
        super().keep(kept)
        self.left = self.left[kept]

    def start(self) -> Tensor:
        """Pyramids side by side, about five times five of them."""
        channels, height, width = self.x.shape[1:]
        side = max(height // 5, 1)
        margin = max(height - side * 5, 0) // 2
        tops, lefts = (margin + side * torch.arange(size // side, device=self.x.device) for size in (height, width))
        numbers = self.noise.uniform(self.x.new_empty(len(self.x), len(tops) * len(lefts), 1 + channels))
        # Squares that would leave the image are left out, but they have their numbers as well.
        fit = ((tops + side <= height)[:, None] & (lefts + side <= width)).flatten()
        self._look(side)
        place = (tops[:, None] * width + lefts).flatten()[fit, None] + self.inside
        tiles = self.patterns[self._pattern((numbers[:, fit] > 0).long())].transpose(1, 2)
        delta = torch.zeros_like(self.x).flatten(2)
        delta[:, :, place] = tiles
        return self._into_ball(delta)

    def _look(self, side: int) -> None:
        """Where the pixels of a square lie, seen from its corner, and the patterns that it may take, (4, side^2)."""
        across = torch.arange(side, device=self.x.device)
        self.inside = (across[:, None] * self.x.shape[3] + across).flatten()
        pattern = pyramids(side, self.order)
        both = torch.stack([pattern, pattern.T]).flatten(1)
        self.patterns = torch.cat([-both, both]).to(self.x)

    def _pattern(self, coins: Tensor) -> Tensor:
        """Each channel's pattern (..., C) by coins (..., 1 + C): which way the square lies, and the channels' signs."""
        return coins[..., :1] + 2 * coins[..., 1:]

    def _into_ball(self, delta: Tensor) -> Tensor:
        """x + delta (N, C, H * W), of the radius eps in L2 and then cut at the box; in L1 the nearest allowed point."""
        if self.order == 2:
            size = torch.linalg.vector_norm(delta, dim=(1, 2), keepdim=True)
            size = size.add_(1e-12)[..., None]
            return torch.addcdiv(self.x, delta.view_as(self.x), size, value=self.eps).clamp_(0, 1)
        moved = self.x + delta.view_as(self.x)
        nearest = moved.clamp(0, 1)
        # Grey images are in the ball once they are cut at the box, mostly.
        outside = ((nearest - self.x).abs_().flatten(1).sum(1) > self.threat.eps).nonzero()[:, 0]
        if len(outside):
            # What does not move is no matter to the projection, and in L1 few pixels move.
            delta = delta.flatten(1)[outside]
            moving = delta.abs().topk(int((delta != 0).sum(1).max())).indices
            there, x = (pixels.flatten(1)[outside].gather(1, moving) for pixels in (moved, self.x))
            nearest.flatten(1)[outside[:, None], moving] = self.threat.project(there, x)
        return nearest

    def lay(self, corners: Tensor, coins: Tensor, side: int) -> tuple[Tensor, ...]:
        self._look(side)
        first, second = (corners[..., 0] * self.x.shape[3] + corners[..., 1]).split(1, dim=-1)
        return first, second, self._pattern(coins)

    def change(self, *numbers: Tensor) -> Tensor:
        first, second, pattern = numbers
        channels = self.x.shape[1]
        delta = (self.point - self.x).flatten(2)
        here, there = ((corner + self.inside)[:, None].expand(-1, channels, -1) for corner in (first, second))
        old = delta.gather(2, here)
        held = self._content(old)
        delta.scatter_(2, here, 0)
        # What both squares hold is counted once.
        given = self._content(delta.gather(2, there))
        delta.scatter_(2, there, 0)
        new = torch.addcdiv(self.patterns[pattern], old, self._root(held) + 1e-12)
        size = self._root(self.left + held + given)
        # In L1 the package spends as much in every channel as all of them have.
        new *= (size if self.order == 2 else size * channels) / (self._root(self._content(new)) + 1e-12)
        delta.scatter_(2, here, new)
        return self._into_ball(delta)

    def _content(self, delta: Tensor) -> Tensor:
        """What pixels take of eps^order, (..., P) -> (..., 1)."""
        size = torch.linalg.vector_norm(delta, self.order, dim=-1, keepdim=True)
        return size.square_() if self.order == 2 else size

    def _root(self, content: Tensor) -> Tensor:
        return content.sqrt() if self.order == 2 else content


def pyramids(side: int, order: int) -> Tensor:
    """The change of a square in L2 (order 2) and L1 (order 1), (side, side) float64 of norm 1.

    Its upper half is a pyramid and its lower half another one, upside down, each of norm 1 before both are divided
    by theirs. From the k-th ring around the middle to the border, a ring gets 1 / k^2 (L1: 1 / k^4) of every ring
    outside of it too.
    """
    halves: list[Tensor] = []
    for height in (side // 2, side - side // 2):
        row, column = ((torch.arange(size) - size // 2).abs() for size in (height, side))
        steps = torch.arange(1, max(height, side) // 2 + 2).double() ** (-4 // order)
        rings = steps.flip(0).cumsum(0).flip(0)
        half = rings[torch.maximum(row[:, None], column)]
        halves.append(half / torch.linalg.vector_norm(half, order))
    whole = torch.cat([halves[0], -halves[1]])
    return whole / torch.linalg.vector_norm(whole, order)
