"""How often the statistics err: `python tests/benchmarks/calibration.py > docs/calibration.md`.

Two defenses are simulated from the committed ledgers. How often an example stands over a defense's seeds says how hard
it is for both; examples are drawn from these with replacement, those that fall to some seeds only in such a share
that two checkpoints disagree on the wanted share of examples. A seed shifts a checkpoint's accuracy by a normal
amount: gained by examples that would fall, lost by those that would stand. Given the shifts, examples are independent
draws, so the counts of their 2^(2k) possible fates are multinomial, and nothing else is needed of 10,000 examples.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from advbench.gate.limits import ALPHA, ROBUST_ALPHA
from advbench.stats.difference import Difference, Groups, Moments
from advbench.stats.paired import interval, mcnemar

Array = NDArray[np.float64]

RECORDS = Path(__file__).resolve().parents[2] / "leaderboard" / "records"
REPLAYS = 10_000
SPREADS, DISCORDANCES = (0, 0.5, 1.3, 3), (5, 10, 15)
"""Points, and percent."""
SAME, OTHER = ("mnist-linf/pgd-at", "mnist-linf/pgd-at"), ("mnist-linf/pgd-at", "mnist-linf/dynamic-at")
"""A/A: one defense twice. A/B: two defenses, shifted to a difference that is known."""
MARGIN = 0.01
DIFFERENCES = (0, -MARGIN, -2 * MARGIN)


class Population:
    """Pairs of (how often it stands under A, under B), and how many examples are like that."""

    def __init__(
        self, names: tuple[str, str], discordance: float, difference: float = 0, records: Path = RECORDS
    ) -> None:
        a, b = (_stands(records, name) for name in names)
        kinds, counts = np.unique(np.stack([a, b], 1), axis=0, return_counts=True)
        self.a, self.b = kinds.T
        weights = counts / counts.sum()
        sure = self.a * (1 - self.b) + self.b * (1 - self.a) == 0
        low, high = 0.0, 1.0
        for _ in range(40):  # halve the range in which the share of unsure examples lies
            share = (low + high) / 2
            parts = np.where(sure, (1 - share) / weights[sure].sum(), share / weights[~sure].sum())
            self.weights = weights * parts
            low, high = (share, high) if self.discordance(difference) < discordance else (low, share)

    def discordance(self, difference: float) -> float:
        """The chance that a checkpoint of A and one of B, better by `difference`, disagree on an example."""
        mean_a, mean_b = self.means()
        b = _shifted(self.b, mean_b, np.array([mean_a - mean_b + difference]))[0]
        return float(self.weights @ (self.a * (1 - b) + b * (1 - self.a)))

    def means(self) -> tuple[float, float]:
        """Accuracies of A and B."""
        return float(self.weights @ self.a), float(self.weights @ self.b)

    def fates(self, shifts_a: Array, shifts_b: Array) -> Array:
        """Chances of the fates of an example, (replays, 2^(k + k)), where seeds are shifted by (replays, k) each."""
        mean_a, mean_b = self.means()
        stands = np.concatenate([_shifted(self.a, mean_a, shifts_a), _shifted(self.b, mean_b, shifts_b)], 1)
        total: Array = np.zeros(1)
        for kind, weight in enumerate(self.weights):
            chance = np.full((len(stands), 1), weight)
            for seed in stands[..., kind].T[..., None]:
                chance = np.stack([chance * (1 - seed), chance * seed], -1).reshape(len(stands), -1)
            total = total + chance
        return total / total.sum(1, keepdims=True)


def _stands(records: Path, name: str) -> Array:
    """On which share of a defense's seeds each example stands."""
    files = sorted(records.glob(f"{name}-s*/examples.parquet"))
    columns = [pq.read_table(file, columns=["broken_by"])["broken_by"].is_null().to_numpy() for file in files]  # pyright: ignore[reportUnknownMemberType]
    return np.mean(columns, axis=0)


def _shifted(stands: Array, mean: float, shift: Array) -> Array:
    """(replays, k, kinds): chances that raise or lower the accuracy `mean` by exactly `shift`."""
    by = shift[..., None]
    return np.clip(np.where(by > 0, stands + by * (1 - stands) / (1 - mean), stands * (1 + by / mean)), 0, 1)


def replay(
    population: Population,
    n: int,
    seeds: int,
    spreads: tuple[float, float],
    difference: float,
    rng: np.random.Generator,
    collapse: float = 0,
    replays: int = REPLAYS,
) -> Array:
    """Counts of fates, (replays, 2^(2 seeds)), where B is better by `difference`, all in fractions.

    With the chance `collapse` a seed of B loses 30 points beside that.
    """
    mean_a, mean_b = population.means()
    a, b = (rng.normal(0, spread, (replays, seeds)) for spread in spreads)
    b = b - 0.3 * (rng.random(b.shape) < collapse)
    return rng.multinomial(n, population.fates(a, b + mean_a - mean_b + difference)).astype(float)


def moments(fates: Array, seeds: int) -> Moments:
    """Of the 2k rows, A's first."""
    rows = np.array(list(product((0.0, 1.0), repeat=2 * seeds)))
    both = np.einsum("rf,fs,ft->rst", fates, rows, rows, optimize=True)
    return Moments.counted(both, int(fates[0].sum()))


def defenses(fates: Array, seeds: int) -> Difference:
    """All replays at once."""
    return Groups.of(moments(fates, seeds), [range(seeds), range(seeds, 2 * seeds)]).defenses()


def rejected(found: Difference) -> float:
    """Share of replays in which an interval of 95 % leaves out 0."""
    return float(np.mean(found.p < 0.05))


def passed(found: Difference, margin: float = MARGIN) -> float:
    """Share of replays that PASS."""
    return float(np.mean(found.interval(1 - 2 * ALPHA)[0] > -margin))


def failed(found: Difference, margin: float = MARGIN) -> float:
    """Share of replays that FAIL."""
    return float(np.mean(found.interval(1 - 2 * ROBUST_ALPHA)[1] < -margin))


def pooled(fates: Array, seeds: int) -> float:
    """Rejections by McNemar's test on verdicts pooled over seeds, seed i of B against seed i of A."""
    rows = np.array(list(product((0, 1), repeat=2 * seeds)))
    gained = fates @ (rows[:, seeds:] > rows[:, :seeds]).sum(1)
    lost = fates @ (rows[:, seeds:] < rows[:, :seeds]).sum(1)
    return float(np.mean(mcnemar(gained, lost) < 0.05))


def pair(population: Population, n: int, difference: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Examples gained and lost by a checkpoint of B beside one of A, (replays,) each."""
    fates = replay(population, n, 1, (0, 0), difference, rng)  # of (A, B): 00, 01, 10, 11
    return fates[:, 1], fates[:, 2]


def line(*cells: object) -> str:
    """A row of a Markdown table; fractions are shown in percent."""
    return f"| {' | '.join(f'{100 * c:.1f}' if isinstance(c, float) else str(c) for c in cells)} |"


def head(*cells: str) -> str:
    """A table's first two rows."""
    return f"\n{line(*cells)}\n{line(*('---' if i < 4 else '---:' for i in range(len(cells))))}"


TEXT = """\
# Calibration

How often the statistics of `advbench compare` and `advbench check` err, in percent of 10,000 replays a line.
`tests/benchmarks/calibration.py` makes this page and says how: ledgers are resampled from the committed records of
`mnist-linf`, seed by seed. A share of 5.0 is known to 0.2 (one standard error).

* *rejects*: two equal sides are called different at the 5 % level. At most 6.
* *PASS at -1*: the new one is worse by exactly the margin of 1 point and passes. At most 5; of two checkpoints the
  tests sum it over every outcome.
* *FAIL at -2*: the new one is worse by 2 points and the gate, judging robust and clean accuracy, FAILs by the robust
  one: its power.
* *discordance*: the share of examples on which a checkpoint of one side and one of the other disagree, before a seed
  shifts anything. *spread*: the standard deviation of a seed's accuracy, in points.

What to take from it: two checkpoints are told 2 points apart by 10,000 examples up to a discordance of 10 %, and in
four cases of five at 15 %. Three seeds do that for defenses only where seeds hardly spread; from a spread of half a
point on it is seeds that are wanting, not examples, and the gate then says INCONCLUSIVE rather than PASS.
"""


def main() -> None:
    """Simulate and print."""
    rng = np.random.default_rng(0)
    print(TEXT)
    print("## Two checkpoints\n\nMcNemar's exact test and Tango's interval. It speaks of these two checkpoints.")
    print(head("sides", "examples", "discordance", "", "rejects", "PASS at -1", "FAIL at -2"))
    for names, n, percent in product((SAME, OTHER), (10_000, 1_000, 360), DISCORDANCES):
        equal, edge, worse = (pair(Population(names, percent / 100, d), n, d, rng) for d in DIFFERENCES)
        fails = interval(*worse, n, 1 - 2 * ROBUST_ALPHA)[1] < -MARGIN
        passes = interval(*edge, n, 1 - 2 * ALPHA)[0] > -MARGIN
        found = (float(np.mean(x)) for x in (mcnemar(*equal) < 0.05, passes, fails))
        print(line("A/A" if names is SAME else "A/B", f"{n:,}", f"{percent} %", "", *found))

    print("\n## Two defenses\n\nA crossed design with random seeds and random examples, by Student's t.")
    print(head("sides, seeds each", "examples", "discordance", "spread", "rejects", "PASS at -1", "FAIL at -2"))
    short = list(product((SAME, OTHER), (3,), (10_000, 1_000), DISCORDANCES, SPREADS))
    for names, seeds, n, percent, spread in [*short, *product((OTHER,), (5,), (10_000,), (10,), SPREADS)]:
        populations = [Population(names, percent / 100, d) for d in DIFFERENCES]
        spreads = spread / 100, spread / 100
        replays = [replay(p, n, seeds, spreads, d, rng) for p, d in zip(populations, DIFFERENCES, strict=True)]
        found = [defenses(fates, seeds) for fates in replays]
        cells = (f"{'A/A' if names is SAME else 'A/B'}, {seeds}", f"{n:,}", f"{percent} %", str(spread))
        print(line(*cells, rejected(found[0]), passed(found[1]), failed(found[2])))
    tell_limits(rng)


def tell_limits(rng: np.random.Generator) -> None:
    """What is refused, and what no method can hold."""
    print("\n## Why verdicts are not pooled, and one checkpoint is not a defense\n")
    print("Rejections of two equal defenses, 10,000 examples, discordance 10 %.")
    print(head("spread", "McNemar, one seed each", "McNemar, pooled over three", "two defenses, three seeds each"))
    population = Population(SAME, 0.1)
    for spread in SPREADS:
        spreads = spread / 100, spread / 100
        fates = replay(population, 10_000, 3, spreads, 0, rng)
        one = replay(population, 10_000, 1, spreads, 0, rng)
        found = pooled(one, 1), pooled(fates, 3), rejected(defenses(fates, 3))
        print(line(str(spread), *found))
    print("\n## Where seeds are not alike\n")
    print("10,000 examples, discordance 10 %, three seeds each. Seeds whose spread differs are what Welch's degrees of")
    print("freedom are for. A defense of which one seed in ten collapses (by 30 points) is another matter: three seeds")
    print("show none in 73 of 100 cases, and what was not seen is in no interval. Its mean accuracy is 3 points lower,")
    print("and it still PASSes a margin of 1 point in the share below. Flags, not statistics, catch a seed that did")
    print("collapse.")
    print(head("spread of A", "spread of B", "collapses in B", "", "rejects", "PASS"))
    for a, b, collapse in ((0, 3, 0), (3, 0, 0), (0.5, 1.3, 0), (0.5, 0.5, 0.1)):
        # With collapses B is as good as A but for them, so that nothing else is rejected or passed.
        at = (0, 0) if collapse else (0, -MARGIN)
        counts = [replay(population, 10_000, 3, (a / 100, b / 100), d, rng, collapse) for d in at]
        found = [defenses(fates, 3) for fates in counts]
        print(line(str(a), str(b), f"{100 * collapse:.0f} %", "", rejected(found[0]), passed(found[1])))


if __name__ == "__main__":
    main()
