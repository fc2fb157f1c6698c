"""A training step of every defense beside one of PGD-AT: `python tests/benchmarks/defenses.py [NAME...]`.

It prints docs/steps.md.

Same network (mnist-cnn), batch of 128, batch norm mode, recipe and number format; the steps alternate, and the figures
are medians of CPU seconds and the example passes that the ledger of passes counts. A wrapper (awp and its like) is
timed around pgd-at. What several processes share is left out: `distributed.py` times that.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch
from torch import nn

from advbench import find
from advbench.defense import Defense, TrainState
from advbench.models.base import Model
from advbench.passes import counting
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.task import shipped
from advbench.threat import Threat

BATCH, EPS, TURNS = 128, 0.3, 9
REFERENCE = "pgd-at"

HEAD = """# What a training step costs

`tests/benchmarks/defenses.py` made this page: one training step of each defense with its default hyper-parameters
beside one of pgd-at with 10 steps, on `mnist-cnn` in fp32, batches of 128, one thread of a shared machine. Passes are
forward and backward example passes a training example, CPU milliseconds the median of nine alternating steps. What is
ramped up in training is there. awp and its like stand around pgd-at; `dat` is one of its processes, and exchanges
nothing.

| defense | passes an example | of pgd-at's | CPU ms a step | of pgd-at's |
| --- | ---: | ---: | ---: | ---: |"""


class Stepper:
    """One defense on its own copy of the network."""

    def __init__(self, name: str, network: nn.Module, training: Training, x: torch.Tensor, y: torch.Tensor) -> None:
        kind = find.defense(shipped("baselines") / f"{name.replace('-', '_')}.py")
        self.defense: Defense = kind()
        self.x, self.y = x, y
        model = copy.deepcopy(network).train()
        noise = Stream(generator("cpu", 0, "noise"))
        self.state = TrainState(model, self.defense.optimizer(model, training), Threat("Linf", EPS), noise)
        # Some remember each example from one epoch to the next; here every step is an epoch of one batch.
        self.state.examples, self.state.rows = len(x), torch.arange(len(x))
        # Late in training: what is ramped up is there.
        self.state.progress = 0.9
        self.defense.prepare(self.state)
        self.seconds: list[float] = []
        self.passes: list[float] = []

    def step(self) -> None:
        began = time.process_time()
        with counting(self.state.model) as passes:
            self.defense.step(self.state, self.x, self.y)
        self.seconds.append(time.process_time() - began)
        self.passes.append((passes.forward + passes.backward) / len(self.x))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = find.named(Model, {"name": "mnist-cnn"}).build((1, 28, 28), 10)
    training = Training(epochs=10, lr=1e-3, optimizer="adam", weight_decay=0.0, precision="fp32")
    x, y = torch.rand(BATCH, 1, 28, 28), torch.arange(BATCH) % 10
    names = sys.argv[1:] or find.names(shipped("baselines"))
    steppers: dict[str, Stepper] = {}
    for name in dict.fromkeys([REFERENCE, *names]):
        if find.defense(shipped("baselines") / f"{name.replace('-', '_')}.py")().workers() > 1:
            continue
        steppers[name] = Stepper(name, network, training, x, y)
    for _ in range(TURNS):
        for stepper in steppers.values():
            stepper.step()
    base = steppers[REFERENCE]
    print(HEAD)
    for name, stepper in sorted(steppers.items(), key=lambda one: statistics.median(one[1].passes)):
        spent, passes = (statistics.median(one) for one in (stepper.seconds, stepper.passes))
        times, cost = (
            mine / statistics.median(theirs) for mine, theirs in ((spent, base.seconds), (passes, base.passes))
        )
        print(f"| {name} | {passes:.1f} | {cost:.2f}x | {1000 * spent:.0f} | {times:.2f}x |")


if __name__ == "__main__":
    main()
