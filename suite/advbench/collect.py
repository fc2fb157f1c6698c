"""Collectors by name to Measures: the model is frozen for them and afterwards is what it was, bit for bit."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector, Measures, NotApplicable, Scene
from advbench.data.base import Examples
from advbench.memory import fitting
from advbench.precision import exact
from advbench.seeds import derive
from advbench.spec import BadInput
from advbench.threat import Threat


def collect(
    model: nn.Module,
    examples: Examples,
    threat: Threat,
    collectors: Sequence[Collector],
    *,
    attack: Attack | None = None,
    seed: int = 0,
    batch: int = 256,
    say: Callable[[str], None] = lambda _line: None,
) -> dict[str, Measures]:
    """All that `each` finds, by collector."""
    return dict(each(model, examples, threat, collectors, attack=attack, seed=seed, batch=batch, say=say))


@dataclass(frozen=True)
class Tried:
    """What came of one collector."""

    name: str
    measures: Measures
    seconds: float
    failed: bool = False
    """It raised something, and a note says what."""


def tried(
    model: nn.Module,
    examples: Examples,
    threat: Threat,
    collectors: Sequence[Collector],
    *,
    seed: int,
    say: Callable[[str], None],
) -> Generator[Tried]:
    """`each`, but whatever a collector raises, out of memory too, is a note in the place of its numbers.

    Those who want as many examples come together and share the adversarial ones. `say` hears of each before it begins.
    """
    sizes = {collector.name: min(collector.examples or len(examples), len(examples)) for collector in collectors}
    for size in dict.fromkeys(sizes.values()):
        left = [collector for collector in collectors if sizes[collector.name] == size]
        while left:
            say(left[0].name)
            began = time.perf_counter()
            try:
                with closing(each(model, examples.some(slice(0, size)), threat, left, seed=seed, say=say)) as stream:
                    for name, measures in stream:
                        yield Tried(name, measures, time.perf_counter() - began)
                        left = left[1:]
                        if left:
                            say(left[0].name)
                        began = time.perf_counter()
            except Exception as error:  # a defense's network or a collector may raise anything; the verdicts stand
                yield Tried(left[0].name, Measures({}, notes=(_failure(error),)), time.perf_counter() - began, True)
                left = left[1:]


def _failure(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}{where}"


def each(
    model: nn.Module,
    examples: Examples,
    threat: Threat,
    collectors: Sequence[Collector],
    *,
    attack: Attack | None = None,
    seed: int = 0,
    batch: int = 256,
    say: Callable[[str], None] = lambda _line: None,
) -> Generator[tuple[str, Measures]]:
    """One collector after another: its name and what it finds on the examples, or on the first so many it asks for.

    The model is on the examples' device, in any mode; collectors see it in eval mode, in its own number format, with
    frozen parameters. `attack` (PGD-20 by default) makes the adversarial examples, once for all collectors. `batch` is
    the most examples in memory at once; fewer where they do not fit.

    Arrays are on the CPU. A quantity that does not apply has no values and a note "not applicable: reason". Raises
    BadInput where there are no examples, or two collectors of one name. Until the last one is done, or the generator is
    closed, the model stays frozen.
    """
    names = [collector.name for collector in collectors]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"collect: '{twice[0]}' is asked for twice; leave one of them out")
    if not len(examples):
        raise BadInput("collect: no examples to collect on; give at least one")
    if batch < 1:
        raise BadInput(f"collect: batch should be at least 1, not {batch}")
    # The fused kernels of attention cannot be differentiated twice; the plain one can.
    with frozen(model), exact(model), sdpa_kernel(SDPBackend.MATH), _own_randomness(examples.device):
        x = examples.pixels(slice(None)).to(_format(model))
        with torch.no_grad():
            logits = model(x[:1])
            steady = torch.equal(logits, model(x[:1]))
        scene = Scene(
            model,
            x,
            examples.labels,
            threat,
            logits.shape[1],
            seed=seed,
            batch=fitting(model, x, batch),
            attack=attack or PGD(),
            say=say,
        )
        # One for each count of examples, so that those who ask for as many share the adversarial ones.
        scenes = {collector.examples: scene.only(collector.examples) for collector in collectors}
        for collector in collectors:
            torch.manual_seed(derive(seed, "collect", collector.name))
            try:
                measures = collector.collect(scenes[collector.examples])
            except NotApplicable as reason:
                measures = Measures({}, notes=(f"not applicable: {reason}",))
            if not steady:
                measures = replace(measures, notes=(*measures.notes, "the model answers differently each time"))
            arrays = {name: array.detach().cpu() for name, array in measures.arrays.items()}
            yield collector.name, replace(measures, arrays=arrays)


@contextmanager
def frozen(model: nn.Module) -> Generator[None]:
    """Inside, the model is in eval mode and its parameters need no gradient; afterwards all is as it was.

    That is: the mode of every module, each `requires_grad`, each `.grad` (the same tensor with the same values), and
    every buffer, bit for bit.
    """
    modes = [(module, module.training) for module in model.modules()]
    needed = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    grads = [(parameter, parameter.grad) for parameter in model.parameters()]
    # What each module holds, for a forward pass may put another tensor in a buffer's place; and the values.
    buffers = [(vars(module)["_buffers"], {**vars(module)["_buffers"]}) for module in model.modules()]
    values = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    try:
        model.eval()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
            # Out of reach, so that nothing can add to it.
            parameter.grad = None
        yield
    finally:
        for module, training in modes:
            module.training = training
        for held, before in buffers:
            held.clear()
            held.update(before)
        with torch.no_grad():
            for tensor, value in values:
                tensor.copy_(value)
        for parameter, needs in needed:
            parameter.requires_grad_(needs)
        for parameter, grad in grads:
            parameter.grad = grad


def _format(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


@contextmanager
def _own_randomness(device: torch.device) -> Generator[None]:
    """Inside, torch's global streams may be seeded and drawn from; afterwards they go on where they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield
