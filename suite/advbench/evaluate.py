"""The attack ladder: weights in, a verdict for every test example out.

Examples are cut into fixed blocks with seeds of their own. In each block the rungs go from cheap to dear: cheap
ones meet every correct example, so that their score alone is known too; AutoAttack's parts meet what still
stands, and a fixed sample alone. Who is broken is decided by the ledger only. Of a model that answers the same each
time, neither the batch size nor the number of workers changes a verdict.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor, nn

from advbench import usable
from advbench.attacks.base import Attack
from advbench.attacks.fgsm import FGSM
from advbench.block import Block, Stage
from advbench.data.base import Examples
from advbench.inference import Engines
from advbench.ledger import Ledger
from advbench.memory import Size, fitting
from advbench.parallel import ALONE, Group
from advbench.passes import Passes
from advbench.scores import Verdicts, join, scores
from advbench.seal import mend
from advbench.seeds import derive, own_streams
from advbench.signs import Signs, connected, signs
from advbench.task import Evaluation
from advbench.threat import Threat
from advbench.turns import Turns

Tell = Callable[[str, int, int, str], None]
Doubt = Callable[[Verdicts], Sequence[str]]
"""From what the cheap rungs found, why the dear ones would prove nothing: names of flags, or none."""

LOOK = 64
"""Test images on which the model is looked at before any attack."""
PROBE = 8
"""Test images on which a quick copy must be the model's function."""


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
    doubt: Doubt | None = None,
    *,
    helps: bool = False,
) -> Verdicts:
    """Attack `model` on `test`, resuming from the `journal` folder where its entries are for `key`.

    The model is put into eval mode and its parameters are frozen meanwhile, so that even an attack that calls
    `.backward()` computes input gradients only. In a `group` each process takes a block of its own, and all return the
    same; the first one alone reads and writes the journal. Without one, other processes of the machine may call this
    with the same arguments at the same time: they take blocks from one another through the journal. Who only `helps`
    raises OSError where the file system has no locks for that. Where the cheap rungs at the ladder's foot raise a
    `doubt`, the dear ones are left out. A model that draws random numbers draws the same ones again in the same
    batches. Raises BadInput for examples and models that nothing can be said about (`usable`).
    """
    usable.labelled(test, classes)
    rungs = [part for attack in attacks for part in attack.parts(classes)]
    cheap = list(takewhile(lambda rung: rung.everywhere, rungs))
    dear = rungs[len(cheap) :]
    foot = [rung.key for rung in cheap]
    sample = torch.linspace(0, len(test) - 1, min(how.alone, len(test))).round().long().unique()
    ladder = [(r.key, type(r).__name__, r.plain()) for r in rungs]
    keys = [_key(key, ladder, asked, threat) for asked in (how, how.model_copy(update={"stop": None}))]
    starts = range(0, len(test), how.block)

    def file(number: int) -> Path:
        return journal / f"{number}.safetensors"

    def fresh(number: int) -> Ledger:
        rows = slice(starts[number], starts[number] + how.block)
        usable.pixels(x := test.pixels(rows))
        return Ledger.open(x, test.labels[rows], test.index[rows], how.votes or 1)

    def opened(number: int) -> Ledger:
        ledger = fresh(number)
        mend(file(number), lambda words: tell("note", 0, 0, words))
        # Whoever climbs on after all takes over what was done until the stop.
        if not ledger.read(file(number), keys[0]) and how.stop is False:
            ledger.read(file(number), keys[1])
        return ledger

    def stages(number: int, ledger: Ledger, *, all_: bool) -> tuple[Block, list[Stage]]:
        inside = sample[(sample >= starts[number]) & (sample < starts[number] + how.block)] - starts[number]
        block = Block(engines, threat, how, ledger, number, inside, size)
        return block, block.first_stages(cheap) + (block.further_stages(dear, len(cheap)) if all_ else [])

    def work(number: int, ledger: Ledger, *, all_: bool) -> None:
        count = len(stages(number, ledger, all_=True)[1])
        block, asked = stages(number, ledger, all_=all_)
        for name, stage in asked:
            if name in ledger.done:
                continue
            started = time.perf_counter()
            block.watch = _pulse(tell, number * count + len(ledger.done), count * len(starts), name)
            with own_streams(derive(how.seed, "model", number, name), test.device):
                stage()
            ledger.done.append(name)
            ledger.seconds += time.perf_counter() - started
            if group.first:
                ledger.write(file(number), keys[0])

    def done(number: int, ledger: Ledger, *, all_: bool) -> bool:
        return all(name in ledger.done for name, _ in stages(number, ledger, all_=all_)[1])

    def in_turn(*, all_: bool) -> list[Ledger]:
        """Every block's ledger after these stages, on the CPU; one that another process has on hand is waited for."""
        turns, ended = Turns(journal / "lock", must=helps), dict[int, Ledger]()
        free, wait = list(range(len(starts))), False
        while free:
            for number in free:
                with turns.of(number, wait=wait) as mine:
                    if mine:
                        work(number, ledger := opened(number), all_=all_)
                        ended[number] = ledger.to("cpu")
                    elif (ledger := fresh(number)).read(file(number), keys[0]) and done(number, ledger, all_=all_):
                        ended[number] = ledger.to("cpu")  # who has it has gone on to what comes after
                if wait:
                    break  # whoever was waited for may be on another one by now
            left = [number for number in free if number not in ended]
            wait, free = len(left) == len(free), left
        return [ended[number] for number in range(len(starts))]

    def together(begun: Callable[[int], Ledger], *, all_: bool) -> list[Ledger]:
        """Likewise in a group, each of which has a block of its own."""
        found: list[Ledger] = []
        for first in range(0, len(starts), group.world):
            numbers = range(first, min(first + group.world, len(starts)))
            # What was journalled is with the first process, and what the others find goes there.
            told = group.told([begun(number).to("cpu") for number in numbers] if group.first else None)
            mine = told[group.rank].to(test.device) if group.rank < len(numbers) else None
            if mine is not None:
                work(numbers[group.rank], mine, all_=all_)
            heard = group.heard(None if mine is None else mine.to("cpu"))[: len(numbers)]
            if group.first:
                for number, ledger in zip(numbers[1:], heard[1:], strict=True):
                    ledger.write(file(number), keys[0])
            found += heard
        return found

    with frozen(model):
        probe = test.pixels(slice(0, PROBE))
        with own_streams(derive(how.seed, "model"), test.device):
            usable.logits(model, probe[:2], classes)
            looked = _look(model, test, sample[:LOOK])
            joined = connected(model, probe[:2])
            fits = fitting(joined, probe, how.batch)
        engines = Engines(joined, probe)
        size = Size(fits, lambda words: tell("evaluate", 0, len(starts), words))

        def verdicts(ledgers: Sequence[Ledger], stopped: Sequence[str] = ()) -> Verdicts:
            whole = join(ledgers)
            names = tuple(rung.key for rung in rungs)
            gradient = tuple(rung.key for rung in rungs if rung.follows_gradient)
            found = scores(whole, attacks, classes)
            one_step = tuple(rung.key for rung in rungs if isinstance(rung, FGSM))
            told = engines.told()
            return Verdicts(names, gradient, one_step, tuple(foot), whole, found, told, tuple(stopped), looked)

        ledgers = in_turn(all_=False) if group.world == 1 else together(opened, all_=False)
        asks = doubt is not None and dear and how.stop is not False
        # One process decides for all of them.
        why = group.told(doubt(verdicts(ledgers)) if group.first else None) if asks and doubt else ()
        if why:
            return verdicts(ledgers, why)
        begun = ledgers
        return verdicts(in_turn(all_=True) if group.world == 1 else together(lambda number: begun[number], all_=True))


def _key(key: str, ladder: Sequence[object], how: Evaluation, threat: Threat) -> str:
    """What a journal's entry must be for."""
    kept = {name: value for name, value in how.plain().items() if name not in ("batch", "corruptions")}
    return hashlib.sha256(f"{key}/{ladder}/{kept}/{threat}".encode()).hexdigest()


def _look(model: nn.Module, test: Examples, rows: Tensor) -> Signs | None:
    """What the model shows on `rows`, or on as many as the memory holds; None without any.

    These are a few hundred passes, which no example pays for.
    """
    while len(rows):
        try:
            return signs(model, test.pixels(rows), test.labels[rows])
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        rows = rows[: len(rows) // 2]
    return None


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Inside, eval mode and no parameter gradients; as it was before on the way out."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Module by module: some may have been in eval mode already.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
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
