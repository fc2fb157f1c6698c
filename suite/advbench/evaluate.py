"""The attack ladder: weights in, a verdict for every test example out.

Examples are cut into fixed blocks with seeds of their own. In each block the rungs go from cheap to dear: cheap
ones meet every correct example, so that their score alone is known too; AutoAttack's parts meet what still
stands, and a fixed sample alone. Who is broken is decided by the ledger only. Neither the batch size nor the
number of workers changes a verdict.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD, input_gradient
from advbench.data.base import Examples
from advbench.inference import Engines
from advbench.ledger import CLEAN, STANDING, Ledger
from advbench.memory import Size, fitting
from advbench.parallel import ALONE, Group
from advbench.passes import Passes, counting
from advbench.record import Accuracy, Scores
from advbench.seeds import BlockNoise, derive
from advbench.task import Evaluation
from advbench.threat import Threat

Tell = Callable[[str, int, int, str], None]

PROBE = 8
"""Test images on which a quick copy must be the model's function."""


@dataclass(frozen=True)
class Verdicts:
    """What one set of weights withstood, example by example, on the CPU."""

    rungs: tuple[str, ...]
    """Names that `broken_by` numbers."""
    gradient_rungs: tuple[str, ...]
    ledger: Ledger
    """All blocks in one."""
    scores: Scores

    @property
    def broken_by(self) -> list[str | None]:
        """For each example: "clean", the name of the rung that broke it, or None where it stands."""
        names = {STANDING: None, CLEAN: "clean"} | dict(enumerate(self.rungs))
        return [names[value] for value in self.ledger.broken_by.tolist()]


def evaluate(
    model: nn.Module,
    test: Examples,
    threat: Threat,
    attacks: Sequence[Attack],
    how: Evaluation,
    classes: int,
    journal: Path,
    key: str,
    tell: Tell,
    group: Group = ALONE,
) -> Verdicts:
    """Attack `model` on `test`, resuming from the `journal` folder where its entries are for `key`.

    The model is put into eval mode and its parameters are frozen meanwhile, so that even an attack that calls
    `.backward()` computes input gradients only. In a `group` each process takes a block of its own, and all return the
    same; the first one alone reads and writes the journal.
    """
    rungs = [part for attack in attacks for part in attack.parts(classes)]
    sample = torch.linspace(0, len(test) - 1, min(how.alone, len(test))).round().long().unique()
    ladder = [(r.key, type(r).__name__, r.plain()) for r in rungs]
    kept = {name: value for name, value in how.plain().items() if name != "batch"}
    key = hashlib.sha256(f"{key}/{ladder}/{kept}/{threat}".encode()).hexdigest()
    starts = range(0, len(test), how.block)
    ledgers: list[Ledger] = []

    def opened(number: int) -> Ledger:
        rows = slice(starts[number], starts[number] + how.block)
        ledger = Ledger.open(test.pixels(rows), test.labels[rows], test.index[rows])
        ledger.read(journal / f"{number}.safetensors", key)
        return ledger

    def work(number: int, ledger: Ledger) -> None:
        inside = sample[(sample >= starts[number]) & (sample < starts[number] + how.block)] - starts[number]
        block = _Block(engines, threat, how, ledger, number, inside, size)
        stages = block.stages(rungs)
        for name, stage in stages:
            if name in ledger.done:
                continue
            started = time.perf_counter()
            block.watch = _pulse(tell, number * len(stages) + len(ledger.done), len(stages) * len(starts), name)
            stage()
            ledger.done.append(name)
            ledger.seconds += time.perf_counter() - started
            if group.first:
                ledger.write(journal / f"{number}.safetensors", key)

    with _frozen(model):
        probe = test.pixels(slice(0, PROBE))
        engines = Engines(model, probe)
        size = Size(fitting(model, probe, how.batch), lambda words: tell("evaluate", 0, len(starts), words))
        for first in range(0, len(starts), group.world):
            numbers = range(first, min(first + group.world, len(starts)))
            # What was journalled is with the first process, and what the others find goes there.
            begun = group.told([opened(number).to("cpu") for number in numbers] if group.first else None)
            mine = begun[group.rank].to(test.device) if group.rank < len(numbers) else None
            if mine is not None:
                work(numbers[group.rank], mine)
            found = group.heard(None if mine is None else mine.to("cpu"))[: len(numbers)]
            if group.first:
                for number, ledger in zip(numbers[1:], found[1:], strict=True):
                    ledger.write(journal / f"{number}.safetensors", key)
            ledgers += found
    whole = _join(ledgers)
    names = tuple(rung.key for rung in rungs)
    gradient = tuple(rung.key for rung in rungs if rung.follows_gradient)
    return Verdicts(names, gradient, whole, _scores(whole, attacks, classes))


@contextmanager
def _frozen(model: nn.Module) -> Generator[None]:
    """Eval mode, no parameter gradients; as it was before on the way out."""
    frozen = [parameter for parameter in model.parameters() if parameter.requires_grad]
    was_training = model.training
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        model.train(was_training)
        for parameter in frozen:
            parameter.requires_grad_(True)


def _pulse(tell: Tell, done: int, total: int, name: str) -> Callable[[Passes], None]:
    """Says at once, and then every few seconds, how far an attack is: one part of AutoAttack can take minutes."""
    tell("evaluate", done, total, name)
    said = time.monotonic()

    def watch(passes: Passes) -> None:
        nonlocal said
        if time.monotonic() - said > 5:
            said = time.monotonic()
            tell("evaluate", done, total, f"{name}, {passes.forward:,} passes")

    return watch


@dataclass
class _Block:
    """One block's work, stage by stage; each stage can be done again from the same ledger."""

    engines: Engines
    threat: Threat
    how: Evaluation
    ledger: Ledger
    number: int
    sample: Tensor
    """Rows of this block in the fixed sample of the `alone` scores."""
    size: Size
    watch: Callable[[Passes], None] | None = None

    def stages(self, rungs: list[Attack]) -> list[tuple[str, Callable[[], None]]]:
        found: list[tuple[str, Callable[[], None]]] = [("clean", self.clean)]
        for position, rung in enumerate(rungs):
            found.append((rung.key, lambda p=position, r=rung: self.rung(p, r)))
        for eps in self.how.curve:
            found.append((f"curve {eps}", lambda e=eps: self.curve(str(e), float(e))))
        return found

    def clean(self) -> None:
        def look(rows: Tensor) -> None:
            model = self.engines.model
            with counting(model) as passes:
                self.ledger.clean(model, rows)
                gradient = input_gradient(model, self.ledger.x[rows], self.ledger.labels[rows])
            self.ledger.flat[rows] = (gradient == 0).flatten(1).all(1)
            self.ledger.spend(rows, passes.forward, passes.backward)

        self.size.each(torch.arange(len(self.ledger), device=self.ledger.x.device), look)

    def rung(self, position: int, attack: Attack) -> None:
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

    def curve(self, name: str, eps: float) -> None:
        correct = self.ledger.correct
        threat = Threat(self.threat.norm, eps)
        broken = self.attack(PGD(steps=20), correct, threat, "curve")
        self.ledger.note_alone(f"curve/{name}", correct, broken)

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


def _join(ledgers: list[Ledger]) -> Ledger:
    def column(name: str) -> Tensor:
        return torch.cat([getattr(ledger, name) for ledger in ledgers])

    names = ("x", "labels", "index", "predicted", "margin", "flat", "broken_by", "adversarial", "forward", "backward")
    withstood = {name: torch.cat([ledger.withstood[name] for ledger in ledgers]) for name in ledgers[0].withstood}
    return Ledger(
        **{name: column(name) for name in names},
        withstood=withstood,
        done=ledgers[0].done,
        seconds=sum(ledger.seconds for ledger in ledgers),
    )


def interval(right: int, n: int, protocol: str | None = None) -> Accuracy:
    """A share with its 95 % Wilson interval (Wilson 1927), by scipy."""
    from scipy.stats import binomtest

    bounds = binomtest(right, n).proportion_ci(0.95, method="wilson")
    return Accuracy(accuracy=right / n, low=float(bounds.low), high=float(bounds.high), n=n, protocol=protocol)


def _scores(ledger: Ledger, attacks: Sequence[Attack], classes: int) -> Scores:
    n = len(ledger)
    after: dict[str, float] = {}
    standing = int((ledger.broken_by != CLEAN).sum())
    clean = interval(standing, n)
    position = 0
    columns: dict[str, Tensor] = {}
    for attack in attacks:
        parts = [part.key for part in attack.parts(classes)]
        for part in parts:
            standing -= int((ledger.broken_by == position).sum())
            after[part] = standing / n
            columns[part] = ledger.withstood[part]
            position += 1
        after[attack.protocol(classes)] = standing / n
        # Alone, an ensemble has broken what any of its parts alone has; where it was not tried, neither were they.
        columns[attack.protocol(classes)] = torch.stack([columns[part] for part in parts]).amin(0)
    tried = {name: column[column >= 0] for name, column in columns.items() if (column >= 0).any()}
    curve = {name: column for name, column in ledger.withstood.items() if name.startswith("curve/")}
    ensembles = [attack for attack in attacks if len(attack.parts(classes)) > 1]
    return Scores(
        clean=clean,
        # What stands has withstood every rung; the strongest one names the protocol.
        robust=interval(standing, n, (ensembles or attacks)[-1].protocol(classes)),
        attacks=after,
        alone={name: int(column.sum()) / len(column) for name, column in tried.items()},
        alone_n={name: len(column) for name, column in tried.items()},
        curve={name.removeprefix("curve/"): int(column.sum()) / n for name, column in curve.items()},
    )
