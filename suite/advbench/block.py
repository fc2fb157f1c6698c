"""One block of test examples and what is done to it, stage by stage; each can be done again from the same ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from advbench.attacks.base import Attack
from advbench.attacks.fab import FAB
from advbench.attacks.pgd import PGD, ascend, input_gradient
from advbench.inference import Engines
from advbench.ledger import CLEAN, Ledger
from advbench.memory import Size
from advbench.passes import Passes, counting
from advbench.seeds import BlockNoise, derive
from advbench.task import Evaluation
from advbench.threat import Threat, per_example

Stage = tuple[str, Callable[[], None]]

CURVE_STEPS = 20
"""PGD steps at each radius of the curve, and of the signs."""
BISECTIONS = 10
"""Halvings of the way between an example and its fooling point."""


def whole_box(threat: Threat, pixels: int) -> Threat:
    """The ball of the same norm around any image that holds all images."""
    return Threat(threat.norm, {"Linf": 1.0, "L2": math.sqrt(pixels), "L1": float(pixels)}[threat.norm])


@dataclass
class Block:
    """A ledger and what its examples meet."""

    engines: Engines
    threat: Threat
    how: Evaluation
    ledger: Ledger
    number: int
    sample: Tensor
    """Rows of this block in the fixed sample of the `alone` scores."""
    size: Size
    watch: Callable[[Passes], None] | None = None

    def first_stages(self, rungs: Sequence[Attack]) -> list[Stage]:
        """The cheap rungs at the ladder's foot, and what shows whether to trust the others."""
        stages: list[Stage] = [("clean", self.clean), *self.rungs(rungs, 0)]
        if self.how.alone:
            whole = whole_box(self.threat, self.ledger.x[0].numel())
            stages += [
                ("sign/unbounded", lambda: self.sign("sign/unbounded", whole)),
                ("sign/further", lambda: self.sign("sign/further", self.threat.scaled(2))),
            ]
        return stages

    def further_stages(self, rungs: Sequence[Attack], done: int) -> list[Stage]:
        """The other rungs, before which the ladder has `done`; then distances and the curve, which know their finds."""
        stages = self.rungs(rungs, done)
        if self.how.distances:
            stages.append(("distances", self.distances))
        return [*stages, ("curve", self.curve)] if self.how.curve else stages

    def rungs(self, rungs: Sequence[Attack], done: int) -> list[Stage]:
        """A stage for each of the `rungs`, the first of which has the number `done`."""
        return [(rung.key, lambda p=position, r=rung: self.rung(p, r)) for position, rung in enumerate(rungs, done)]

    def clean(self) -> None:
        """The model's answers without an attack."""

        def look(rows: Tensor) -> None:
            model = self.engines.model
            with counting(model) as passes:
                self.ledger.clean(model, rows)
                gradient = input_gradient(model, self.ledger.x[rows], self.ledger.labels[rows])
            self.ledger.flat[rows] = (gradient == 0).flatten(1).all(1)
            self.ledger.spend(rows, passes.forward, passes.backward)

        self.size.each(torch.arange(len(self.ledger), device=self.ledger.x.device), look)

    def rung(self, position: int, attack: Attack) -> None:
        """One step of the ladder."""
        ledger = self.ledger
        if attack.everywhere:
            correct = ledger.correct
            broken = self.attack(attack, correct, self.threat, attack.key, position)
            ledger.note_alone(attack.key, correct, broken)
        else:
            met = ledger.standing
            broken = self.attack(attack, met, self.threat, attack.key, position)
            self.alone(attack, met, broken)

    def alone(self, attack: Attack, met: Tensor, broken: Tensor) -> None:
        """How the fixed sample does against this attack alone.

        A sample example that the rung met and did not break has its answer, and so has one that it broke,
        unless the alone version is a weaker one (fewer queries). Only the others are attacked again.
        """
        weaker = attack.alone() != attack
        known = torch.full_like(self.ledger.broken_by, -1)
        known[met] = torch.where(broken, -1 if weaker else 0, 1)
        known[self.ledger.broken_by == CLEAN] = 0
        sample = self.sample.to(self.ledger.x.device)
        open_rows = sample[known[sample] == -1]
        known[open_rows] = (~self.attack(attack.alone(), open_rows, self.threat, f"{attack.key}/alone")).long()
        self.ledger.note_alone(attack.key, sample, known[sample] == 0, everywhere=False)

    def sign(self, name: str, threat: Threat) -> None:
        """PGD from the example itself on the fixed sample: in so large a ball it must find something."""
        sample = self.sample.to(self.ledger.x.device)
        rows = sample[self.ledger.broken_by[sample] != CLEAN]
        broken = self.attack(PGD(steps=CURVE_STEPS, random_start=False), rows, threat, name)
        self.ledger.note_alone(name, rows, broken, everywhere=False)

    def distances(self) -> None:
        """How far the nearest fooling point of each correct example is at most: FAB, then bisection on the way home."""
        ledger, whole = self.ledger, whole_box(self.threat, self.ledger.x[0].numel())
        noise = derive(self.how.seed, "attack", "distances", self.number)

        def attempt(rows: Tensor) -> None:
            x, labels = ledger.x[rows], ledger.labels[rows]
            with self.engines.counting("fp32", self.watch) as (model, counts):
                found = FAB(nearest=True).run(model, x, labels, whole, BlockNoise(x.device, noise, len(ledger), rows))
                ledger.judge(self.engines.model, whole, rows, found)
                near, far = torch.zeros(len(rows), device=x.device), torch.ones(len(rows), device=x.device)
                for _ in range(BISECTIONS):
                    middle = (near + far) / 2
                    fools = ledger.judge(self.engines.model, whole, rows, x.lerp(found, per_example(middle, x)))
                    near, far = torch.where(fools, near, middle), torch.where(fools, middle, far)
            ledger.spend(rows, sum(c.forward for c in counts), sum(c.backward for c in counts))

        self.size.each(ledger.correct, attempt)

    def curve(self) -> None:
        """Which examples stand at each radius, from the smallest on: PGD from where the radius before ended.

        What a ball holds the larger ones hold too, so an example that is broken at a radius stays so; and a point that
        any rung has found nearby breaks it there.
        """
        correct, last = self.ledger.correct, self.ledger.x.clone()
        seed = derive(self.how.seed, "attack", "curve", self.number)
        for position, eps in enumerate(self.how.curve):
            known = self._pursue(Threat(self.threat.norm, float(eps)), correct, last, None if position else seed)
            self.ledger.note_alone(f"curve/{eps}", correct, known[correct])

    def _pursue(self, threat: Threat, correct: Tensor, last: Tensor, seed: int | None) -> Tensor:
        """Which examples are broken within the ball, (n,) bool; PGD goes from `last` (n, ...), where it leaves its end.

        With a `seed` it starts at random.
        """
        ledger = self.ledger
        known = ledger.distance <= threat.eps + threat.tolerance

        def attempt(rows: Tensor) -> None:
            x, labels = ledger.x[rows], ledger.labels[rows]
            start = last[rows]
            if seed is not None:
                start = threat.random_start(x, BlockNoise(rows.device, seed, len(ledger), rows))
            with self.engines.counting(None, self.watch) as (model, counts):
                far = threat.eps / 4
                last[rows] = ascend(model, x, labels, threat, start=start, steps=CURVE_STEPS, step_size=far)
                known[rows] |= ledger.judge(self.engines.model, threat, rows, last[rows])
            ledger.spend(rows, sum(c.forward for c in counts), sum(c.backward for c in counts))

        self.size.each(correct[~known[correct]], attempt)
        return known

    def attack(self, attack: Attack, rows: Tensor, threat: Threat, name: str, rung: int | None = None) -> Tensor:
        """Run every restart on those of `rows` that it has not broken; which rows fell, (len(rows),) bool.

        With a `rung` the ledger's standing examples fall too, otherwise only the answer is returned.
        """
        fell = torch.zeros(len(self.ledger), dtype=torch.bool, device=rows.device)
        for restart in range(attack.restarts):
            seed = derive(self.how.seed, "attack", name, self.number, restart)

            def attempt(batch: Tensor, seed: int = seed) -> None:
                noise = BlockNoise(batch.device, seed, len(self.ledger), batch)
                x, labels = self.ledger.x[batch], self.ledger.labels[batch]
                with self.engines.counting(attack.passes, self.watch) as (model, counts):
                    candidates = attack.run(model, x, labels, threat, noise)
                    broken = self.ledger.judge(self.engines.model, threat, batch, candidates)
                self.ledger.spend(batch, sum(c.forward for c in counts), sum(c.backward for c in counts))
                fell[batch] = broken
                if rung is not None:
                    self.ledger.enter(rung, batch, broken, candidates)

            self.size.each(rows[~fell[rows]], attempt, whole=attack.whole_block)
        return fell[rows]
