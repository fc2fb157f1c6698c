"""The difference between two groups of rows, one row a seed: as checkpoints, or as the defenses that made them.

Rows are compared on the same examples, so what makes an example easy for all of them cancels. What is left has two
sources. Another draw of examples would give another difference: `checkpoints` counts that. Another draw of seeds
would too: `defenses` counts both. Verdicts pooled over seeds would count 3n examples where n were seen, and no seeds
at all.

    rows --Moments.of--> Moments --Groups.of--> Groups --checkpoints, defenses--> Difference
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]

LEAST_SEEDS = 3
"""On each side. Fewer never support a claim about a defense."""


@dataclass(frozen=True)
class Moments:
    """Of m rows of verdicts on the same `n` examples: all that a comparison of them needs."""

    means: Array
    """(..., m)"""
    covariance: Array
    """(..., m, m), over the examples"""
    n: int

    @classmethod
    def of(cls, rows: NDArray[np.bool_]) -> Moments:
        """Of (m, n) verdicts. One matrix product, exact in float32 below 16 million examples."""
        n = rows.shape[1]
        ones = rows.astype(np.float32)
        return cls.counted((ones @ ones.T).astype(float), n)

    @classmethod
    def counted(cls, both: Array, n: int) -> Moments:
        """From (..., m, m) counts of the examples on which both rows are right."""
        means = np.diagonal(both, axis1=-2, axis2=-1) / n
        covariance = (both / n - means[..., :, None] * means[..., None, :]) * (n / max(n - 1, 1))
        return cls(means, covariance, n)


@dataclass(frozen=True)
class Difference:
    """The mean of B's rows minus the mean of A's, and the variances of it; numbers, or arrays of one shape."""

    value: Any
    examples: Any
    """Variance by the draw of examples, of what all seeds of a group share."""
    noise: tuple[Any, Any]
    """Variance by examples that fall to some seeds and not to others, of A and of B."""
    spread: tuple[Any, Any]
    """Variance of the mean of A's and of B's rows, by how their accuracies scatter; holds the noise as well."""
    seeds: tuple[Any, Any]
    """How many, of A and of B."""
    n: float

    @property
    def variance(self) -> Any:
        """What examples explain, and the spread of seeds beyond it."""
        beyond = sum(np.maximum(s - i, 0) for s, i in zip(self.spread, self.noise, strict=True))
        return self.examples + sum(self.noise) + beyond

    @property
    def se(self) -> Any:
        """Standard error."""
        return np.sqrt(self.variance)

    @property
    def df(self) -> Any:
        """Degrees of freedom of the variance (Satterthwaite 1946, Welch 1947), whole ones.

        Rounded down, because by the estimated fraction a bound at 5 % errs in up to 5.7 % where spreads are unequal.
        """
        known = self.examples + sum(self.noise)
        parts = [s**2 / np.maximum(k - 1, 1) for s, k in zip(self.spread, self.seeds, strict=True)]
        return np.floor(np.maximum(self.variance**2 / (sum(parts) + known**2 / max(self.n - 1, 1)), 1))

    @property
    def p(self) -> Any:
        """Two-sided, of no difference."""
        return 2 * stdtr(self.df, -np.abs(self.value) / self.se)

    def interval(self, confidence: float = 0.95) -> tuple[Any, Any]:
        """By Student's t."""
        half = stdtrit(self.df, (1 + confidence) / 2) * self.se
        return np.maximum(self.value - half, -1.0), np.minimum(self.value + half, 1.0)

    def scaled(self, examples: float = 1, seeds: float = 1) -> Difference:
        """As if the same had been seen on `examples` times as many examples, with `seeds` times as many seeds."""
        noise = tuple(i / examples / seeds for i in self.noise)
        beyond = [np.maximum(s - i, 0) for s, i in zip(self.spread, self.noise, strict=True)]
        chance = [np.minimum(s, i) for s, i in zip(self.spread, self.noise, strict=True)]
        spread = tuple((x + c / examples) / seeds for x, c in zip(beyond, chance, strict=True))
        return replace(
            self,
            examples=self.examples / examples,
            noise=noise,
            spread=spread,
            seeds=(self.seeds[0] * seeds, self.seeds[1] * seeds),
            n=self.n * examples,
        )


@dataclass(frozen=True)
class Groups:
    """Of g groups of rows, what any two of them are compared by."""

    means: Array
    """(..., g): the mean over each group's rows."""
    covariance: Array
    """(..., g, g), over the examples, of those means."""
    noise: Array
    spread: Array
    """(..., g), as in `Difference`; 0 for a group of one row."""
    seeds: NDArray[np.int64]
    n: int

    @classmethod
    def of(cls, moments: Moments, groups: Sequence[Sequence[int]]) -> Groups:
        """Of `groups`, lists of rows."""
        weights = np.zeros((len(groups), moments.means.shape[-1]))
        for i, rows in enumerate(groups):
            weights[i, list(rows)] = 1 / len(rows)
        return cls(
            moments.means @ weights.T,
            weights @ moments.covariance @ weights.T,
            np.stack([_noise(moments, list(rows)) for rows in groups], -1),
            np.stack([_spread(moments, list(rows)) for rows in groups], -1),
            np.array([len(rows) for rows in groups]),
            moments.n,
        )

    def checkpoints(self, b: Any = 1, a: Any = 0) -> Difference:
        """Of the rows of groups `b` and `a` as they are: what another draw of examples would change."""
        zero = np.zeros_like(self.means[..., b])
        seeds = self.seeds[a], self.seeds[b]
        return Difference(self._value(b, a), self._total(b, a), (zero, zero), (zero, zero), seeds, self.n)

    def defenses(self, b: Any = 1, a: Any = 0) -> Difference:
        """Of what made the rows of groups `b` and `a`: what other examples and other seeds would change.

        Accuracies of seeds scatter for two reasons, the seed and the examples: a crossed design with random seeds and
        random examples. The part of the examples is known well from so many of them; the rest of the scatter is added
        to it with the few degrees of freedom that seeds have.
        """
        if (fewest := int(np.min([self.seeds[a], self.seeds[b]]))) < LEAST_SEEDS:
            raise ValueError(f"a group has {fewest} of the {LEAST_SEEDS} seeds that speak of a defense")
        noise = self.noise[..., a], self.noise[..., b]
        shared = np.maximum(self._total(b, a) - sum(noise), 0)
        spread = self.spread[..., a], self.spread[..., b]
        return Difference(self._value(b, a), shared, noise, spread, (self.seeds[a], self.seeds[b]), self.n)

    def _value(self, b: Any, a: Any) -> Any:
        return self.means[..., b] - self.means[..., a]

    def _total(self, b: Any, a: Any) -> Any:
        """The variance of the difference over examples.

        Two examples are added, one won and one lost, as Bonett & Price do (J. Educ. Behav. Stat. 37, 2012), so that a
        small sample without a discordant example is not taken for certainty.
        """
        c = self.covariance
        return (c[..., b, b] + c[..., a, a] - 2 * c[..., b, a]) / self.n + 2 / self.n**2


def _noise(of: Moments, rows: list[int]) -> Any:
    """The residual mean square of the rows x examples table, over all its cells."""
    block = of.covariance[..., rows, :][..., rows]
    k = len(rows)
    residual = (np.trace(block, axis1=-2, axis2=-1) - block.sum(axis=(-2, -1)) / k) / max(k - 1, 1)
    return np.maximum(residual, 0) / (of.n * k)


def _spread(of: Moments, rows: list[int]) -> Any:
    """The variance of the rows' mean accuracy, by how their accuracies scatter."""
    k = len(rows)
    return of.means[..., rows].var(axis=-1, ddof=min(k - 1, 1)) / k
