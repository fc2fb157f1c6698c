"""A confidence sequence for a paired difference, looked at as often as one likes.

The examples of a test set come in random order, each once, and each says gained (1), lost (-1) or neither (0). At
every moment there is an interval for the mean over the whole test set, and with probability 1 - alpha all of them
hold it: one may stop as soon as it says enough. A fixed-n interval that is peeked at has no such right.

Against every mean somebody bets (Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting",
JRSS B 86, 2024, section 5, without replacement): if the mean is true, the game is fair and the capital is a
martingale, which by Ville's inequality reaches 2 / alpha with probability alpha / 2 at most. A mean against which the
capital got there is left out. Half of the capital bets that the mean is larger, half that it is smaller.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

LARGEST_BET = 0.45
"""Outcomes and means lie in [-1, 1]: below 1/2 no bet can lose all."""
PRIOR = 1.0, 10.0
"""Discordant examples, and examples, that count as seen before the first: 10 % until it is known better."""
HALVINGS = 40


def bets(x: Array, resolution: float) -> Array:
    """The stake on each of (..., t) outcomes, known before it: what grows fastest if the mean is off by `resolution`.

    Kelly's stake for a small edge is the edge over the variance, here over the share of discordant examples so far.
    """
    seen = np.cumsum(x**2, -1) - x**2
    share = (PRIOR[0] + seen) / (PRIOR[1] + np.arange(x.shape[-1]))
    return np.minimum(resolution / share, LARGEST_BET)


def log_capital(x: Array, stakes: Array, size: int, mean: ArrayLike) -> Array:
    """Log of the capital after each of (..., t) outcomes, of who bets with `stakes` that `mean` is too small.

    Of a test set of `size`, what is left has another mean after every draw. Bet -x against -mean for the other side.
    """
    drawn = np.cumsum(x, -1) - x
    left = (size * np.asarray(mean) - drawn) / (size - np.arange(x.shape[-1]))
    # Where what is left could not have that mean, the mean is impossible, and the stakes might not be covered.
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.where(left < -1 - 1e-9, np.inf, np.log1p(stakes * (x - np.minimum(left, 1.0))))
    return np.cumsum(steps, -1)


class ConfidenceSequence:
    """An interval that holds at all times together, for the mean of `size` differences drawn without replacement.

    It is valid whatever `resolution` is, the difference that is to be told apart, and narrowest around it.
    """

    def __init__(self, size: int, resolution: float, alpha: float = 0.05) -> None:
        self.size = size
        self.resolution = resolution
        self.threshold = log(2 / alpha)
        self.seen: Array = np.zeros(0)
        self.low, self.high = -1.0, 1.0

    def add(self, differences: ArrayLike) -> tuple[float, float]:
        """The next outcomes, 1, 0 or -1, in the random order in which they came; the interval by now."""
        self.seen = np.concatenate([self.seen, np.asarray(differences, float)])
        if len(self.seen) > self.size:
            raise ValueError(f"{len(self.seen)} of {self.size} examples")
        # Intervals that hold together hold in their intersection.
        self.low = max(self.low, self._lower(self.seen))
        self.high = min(self.high, -self._lower(-self.seen))
        return self.low, self.high

    def _lower(self, x: Array) -> float:
        """The capital falls as the mean that is bet against grows: halve the range in which it crosses."""
        rest = self.size - len(x)
        low, high = (float(x.sum()) - rest) / self.size, (float(x.sum()) + rest) / self.size
        stakes = bets(x, self.resolution)

        def excluded(mean: float) -> Any:
            return log_capital(x, stakes, self.size, mean).max(initial=0) >= self.threshold

        if not excluded(low):
            return low
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if excluded(middle) else (low, middle)
        return low
