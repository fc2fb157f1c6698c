"""What a confidence sequence saves, and how often it errs: `python tests/benchmarks/sequential.py`.

It writes docs/sequential.md to the standard output. A test set of 10,000 examples with fixed shares of gained and lost
ones is drawn in random order, without replacement.
"""

from __future__ import annotations

from itertools import product
from math import log

import numpy as np
from numpy.typing import NDArray

from advbench.stats.sequential import bets, log_capital

Array = NDArray[np.float64]

SIZE, REPLAYS, CHUNK = 10_000, 2_000, 250
ALPHA = 0.05
TEXT = """\
# Stopping early

What the confidence sequence of `advbench.stats.sequential` saves of a test set of 10,000 examples, and how often it
errs, in percent of 2,000 replays a line (an error of 5.0 is known to 0.5). `tests/benchmarks/sequential.py` makes this
page.

* *errs*: at some moment the interval of 95 % leaves out the truth. At most 5, by proof (Ville).
* *0 or 2 points*: the share of the test set, on average and in nine cases of ten, after which the interval leaves out
  either 0 or -2 points, as a bet on a resolution of 2 points.
* *margin 1*: the share after which it lies above or below -1 point, as a bet on 1 point. Where the truth is the margin
  nothing should be decided before the end, and 100 is right.

| discordance | truth, points | errs | 0 or 2 points | nine of ten | margin 1 | nine of ten |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def orders(gained: int, lost: int, replays: int, size: int, rng: np.random.Generator) -> Array:
    """(replays, size): 1, -1 and 0 in random orders."""
    row = np.concatenate([np.ones(gained), -np.ones(lost), np.zeros(size - gained - lost)])
    return rng.permuted(np.tile(row, (replays, 1)), axis=1)


def leaves_out(x: Array, mean: float, resolution: float, below: bool | None = None) -> Array:
    """After how many examples the sequence leaves out `mean`, (replays,); size + 1 for never.

    `below`: only when the mean lies below the interval (True), or above it (False).
    """
    size, threshold, stakes = x.shape[-1], log(2 / ALPHA), bets(x, resolution)
    sides = [s for s, wanted in ((1, below is not False), (-1, below is not True)) if wanted]
    crossed = np.any([log_capital(s * x, stakes, size, s * mean) >= threshold for s in sides], axis=0)
    return np.where(crossed.any(-1), crossed.argmax(-1) + 1, size + 1)


def main() -> None:
    """Simulate and print."""
    rng = np.random.default_rng(0)
    print(TEXT)
    for percent, points in product((5, 10, 15), (0, -0.5, -1, -1.5, -2, -3)):
        total, net = SIZE * percent // 100, round(SIZE * points / 100)
        found: list[tuple[Array, Array, Array]] = []
        for _ in range(REPLAYS // CHUNK):
            x = orders((total + net) // 2, (total - net) // 2, CHUNK, SIZE, rng)
            wrong = leaves_out(x, points / 100, 0.02)
            either = np.minimum(leaves_out(x, 0, 0.02), leaves_out(x, -0.02, 0.02))
            found.append((wrong, either, leaves_out(x, -0.01, 0.01)))
        wrong, either, margin = (np.concatenate(part) for part in zip(*found, strict=True))
        shares = [100 * np.minimum(n, SIZE) / SIZE for n in (either, margin)]
        cells = [100 * np.mean(wrong <= SIZE)] + [f for s in shares for f in (s.mean(), np.quantile(s, 0.9))]
        print(f"| {percent} % | {points:g} | {' | '.join(f'{cell:.1f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
