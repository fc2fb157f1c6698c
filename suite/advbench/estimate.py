"""How long a job may take here: example passes times the measured speed of its model.

An estimate orders the queue and tells a person whether to wait; records tell the truth afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from advbench.attacks.base import Attack
from advbench.attacks.pgd import ascend
from advbench.collectors.base import Collector
from advbench.data.base import DataSet
from advbench.data.subsets import Subsets
from advbench.defense import Defense
from advbench.models.base import Model
from advbench.plan import Work
from advbench.recipe import Training
from advbench.task import Evaluation
from advbench.threat import Norm, Threat

AUTOATTACK_PAIRS = 10_600 / 2
"""Forward-and-backward pairs that an example standing to the end costs: 202 + 1,827 + 3,600 + 5,000 forward
equivalents for its four parts, by their published iteration counts."""
SPEED = {"autoattack-fast": 0.5, "autoattack-rand": 2 * 101 * 20 / AUTOATTACK_PAIRS}
"""Share of that time which another ensemble needs: one that lets fooled examples go and asks nothing twice (0.35 on
digits), and one of two parts with 20 passes a step."""
STANDING = {True: 0.6, False: 0.1}
"""Share of the examples that meets most of AutoAttack, for an adversarial defense and for another one."""

ADVERSARIAL = 40
"""Passes of an adversarial example that collectors share: PGD-20."""
BATCH = 256
"""Examples that a collector has in memory at once."""

PATIENCE = 1.0
"""Seconds after which a measurement of the model's speed is not repeated."""

Rate = tuple[float, float]
"""Seconds of a forward-and-backward pass: per call, and per example on top."""


def rate(model: Model, dataset: DataSet, norm: Norm) -> Rate:
    """Measure `model` on one thread of this machine (or on its accelerator), seconds at the most.

    A pass is a step of PGD in that norm: beside a small model its projection is most of what a job does.
    """
    threat = Threat(norm, {"Linf": 0.1, "L2": 1.0, "L1": 10.0}[norm])
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng([]):
        net = model.build(dataset.shape, dataset.classes).to(device).eval()  # one example has no batch statistics

    def fastest(count: int) -> float:
        x, y = torch.rand(count, *dataset.shape, device=device), torch.zeros(count, dtype=torch.int64, device=device)
        runs: list[float] = []
        while len(runs) < 2 or (len(runs) < 4 and sum(runs) < PATIENCE):  # the first one also wakes the machine
            started = time.perf_counter()
            found = ascend(net, x, y, threat, start=x, steps=1, step_size=2 * threat.eps)
            found.sum().item()  # reading a number waits for the device
            runs.append(time.perf_counter() - started)
        return min(runs)

    one = fastest(1)
    # A wide network on a CPU would take minutes and gigabytes for 128.
    many = max(4, min(128, int(PATIENCE / one)))
    more = fastest(many)
    torch.set_num_threads(threads)
    return one, max(more - one, 0) / (many - 1)


Bout = tuple[float, float, int]
"""Forward-and-backward pairs of each example, examples, examples a call."""


def collecting(collectors: Sequence[Collector], training: Training, subsets: Subsets, classes: int) -> float:
    """Passes of all collectors: on test examples afterwards, and along the training on those of validation."""
    total = 0.0
    for every in {None, *(one.every for one in collectors)}:
        due = [one for one in collectors if (every is None and not one.along_only) or (every and one.every == every)]
        looks, there = (-(-training.epochs // every), subsets.validation) if every else (1, subsets.test)
        counts = [min(one.examples or len(there), len(there)) for one in due]
        own = sum(one.passes(classes) * count for one, count in zip(due, counts, strict=True))
        # Those who look at as many examples share the adversarial ones.
        shared = {count for one, count in zip(due, counts, strict=True) if not one.along_only}
        total += looks * (own + ADVERSARIAL * sum(shared))
    return total


@dataclass(frozen=True)
class Effort:
    """What decides how long a job takes."""

    training: Training
    evaluation: Evaluation
    defense: Defense
    attacks: Sequence[Attack]
    collectors: Sequence[Collector]
    subsets: Subsets
    classes: int

    def work(self) -> Work:
        """In example passes: what records turn into seconds, and where there are none `seconds`."""
        _, validation, ladder = self._bouts()
        return Work(
            train=self.training.epochs * sum(self.defense.passes()) * len(self.subsets.train),
            validation=2 * validation[0] * validation[1],
            attack=sum(2 * pairs * count for pairs, count, _ in ladder),
            collect=self._collecting(),
            test=len(self.subsets.test),
            adversarial=self.defense.adversarial,
        )

    def seconds(self, speed: Rate) -> float:
        """Training, validation, the whole ladder and all collectors on one worker, in seconds."""
        call, example = speed
        train, validation, ladder = self._bouts()
        total = 0.0
        for pairs, count, batch in (train, validation, *ladder):
            total += pairs * (call * max(1, count / batch) + example * count)
        return total + self._collecting() / 2 * (call / BATCH + example)

    def _bouts(self) -> tuple[Bout, Bout, list[Bout]]:
        """Training, validation, and the ladder with the curve."""
        forward, backward = self.defense.passes()
        how, epochs, test = self.evaluation, self.training.epochs, len(self.subsets.test)
        ladder: list[Bout] = []
        for attack in self.attacks:
            if len(attack.parts(self.classes)) > 1:
                pairs = AUTOATTACK_PAIRS * SPEED.get(attack.name, 1)
                ladder.append((pairs, test * STANDING[self.defense.adversarial], how.block))
            else:
                pairs = attack.restarts * float(getattr(attack, "steps", 1)) * (getattr(attack, "eot", None) or 1)
                ladder.append((pairs, test, how.batch))
        ladder.append((20 * (len(how.curve) + 1), test, how.batch))
        return (
            (epochs * (forward + 2 * backward) / 3, len(self.subsets.train), self.training.batch),
            (epochs * 12, len(self.subsets.validation), how.batch),
            ladder,
        )

    def _collecting(self) -> float:
        return collecting(self.collectors, self.training, self.subsets, self.classes)
