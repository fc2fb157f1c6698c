"""Where every random number comes from: one seed, split by name, never a shared global stream.

Two streams with different names are independent, so adding a draw in one place moves nothing in another,
and a stream can be made again at any epoch or block without replaying the ones before it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import copy
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` under `seed`."""
    text = "/".join(map(str, (seed, *names)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *names: str | int) -> torch.Generator:
    """A fresh generator for the stream `names` under `seed` on `device`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


@contextmanager
def own_streams(seed: int, device: torch.device | None = None) -> Generator[None]:
    """For code that is not ours: global streams of torch, numpy and Python that start at `seed`, and go back after it.

    Of accelerators only the stream of `device` is touched.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    kept = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])


class Noise(Protocol):
    """What draws random numbers of the shape of a batch."""

    def uniform(self, x: Tensor) -> Tensor:
        """U(-1, 1) of x's shape."""
        ...

    def normal(self, x: Tensor) -> Tensor:
        """N(0, 1) of x's shape."""
        ...


class Stream:
    """Noise for training: the next numbers of one generator.

    >>> import torch
    >>> Stream(generator("cpu", 0, "attack")).uniform(torch.zeros(2, 3)).shape
    torch.Size([2, 3])
    """

    def __init__(self, source: torch.Generator) -> None:
        self.generator = source
        self.rank, self.world = 0, 1
        self.rows = slice(0, 0)
        self.size = 0

    def share(self, rank: int, world: int, rows: slice, size: int) -> None:
        """From here on, process `rank` of `world` draws for `rows` of a batch of `size`.

        All draw for the whole batch from equal generators and keep their own part, so that each example meets the
        same numbers whoever has it, and no two examples meet the same ones.
        """
        self.rank, self.world, self.rows, self.size = rank, world, rows, size

    def uniform(self, x: Tensor) -> Tensor:
        return self._mine(x, lambda whole, source: whole.uniform_(-1, 1, generator=source))

    def normal(self, x: Tensor) -> Tensor:
        return self._mine(x, lambda whole, source: whole.normal_(generator=source))

    def _mine(self, x: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
        if self.world == 1:
            return draw(torch.empty_like(x), self.generator)
        if len(x) == self.rows.stop - self.rows.start:
            return draw(x.new_empty((self.size, *x.shape[1:])), self.generator)[self.rows]
        # A piece of the part: numbers of nobody else. All take one seed for it, whatever its size. Where one process
        # has more pieces than another, which no shipped defense brings about, their generators are unequal afterwards.
        seed = torch.randint(2**62, (1,), generator=self.generator, device=self.generator.device)
        own = generator(self.generator.device, int(seed), self.rank)
        return draw(torch.empty_like(x), own)


class BlockNoise:
    """Noise for evaluation: the numbers belong to an example's place in its block, not to its batch.

    Every draw is made for the whole block and the wanted rows are taken, so an example meets the same
    numbers whatever the batch size is and whoever else still stands.
    """

    def __init__(self, device: torch.device, seed: int, size: int, rows: Tensor) -> None:
        """`size` examples in the block; `rows` (B,) are the places of the batch's examples in it."""
        self.generator = torch.Generator(device=device).manual_seed(seed)
        self.seed = seed
        self.size = size
        self.rows = rows

    def some(self, kept: Tensor) -> BlockNoise:
        """The same stream for those of the rows that are `kept`, a mask (B,) or places in it; both go on together."""
        part = copy(self)
        part.rows = self.rows[kept]
        return part

    def _block(self, x: Tensor) -> Tensor:
        return torch.empty((self.size, *x.shape[1:]), dtype=x.dtype, device=x.device)

    def uniform(self, x: Tensor) -> Tensor:
        return self._block(x).uniform_(-1, 1, generator=self.generator)[self.rows]

    def normal(self, x: Tensor) -> Tensor:
        return self._block(x).normal_(generator=self.generator)[self.rows]
