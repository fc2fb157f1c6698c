"""What studies train and ask with: a defense's own steps in a bare loop, and a quick robust accuracy.

`advbench.train` has jobs, number formats, averages, validation and checkpoints, of which a study of seconds needs none;
where it uses none of them either, the two end in the same weights. It is not for a defense that asks for the number of
the step or the rows of its batch (guided-at, nu-at, fgsm-pgi).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from advbench import find
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.defense import Defense, TrainState
from advbench.models.base import Model
from advbench.recipe import Training
from advbench.schedule import ball, learning_rate
from advbench.seeds import BlockNoise, Stream, derive, generator
from advbench.task import Defended
from advbench.threat import Threat

Small = Literal["mlp", "digits-cnn", "mnist-cnn"]
"""Networks that a study may be asked about."""


def baseline(name: str, **fields: object) -> Defense:
    """A shipped defense. Raises BadInput for fields that it does not have."""
    return find.build(find.defense(find.defense_file(Defended(name=name), Path())), fields)


def fresh(name: Small, data: Examples, classes: int) -> nn.Module:
    """A network by its name, as torch's global stream draws it, for these images and on their device."""
    channels, height, width = data.pixels(slice(0, 1)).shape[1:]
    return find.build(find.part(Model, name), {}).build((channels, height, width), classes).to(data.device)


def teach(
    model: nn.Module,
    data: Examples,
    defense: Defense,
    threat: Threat,
    training: Training,
    seed: int,
    after: Callable[[int], None] | None = None,
) -> nn.Module:
    """`model`, trained in place in fp32 by the steps of `defense`, and then in eval mode.

    `after` is called with each epoch's number at its end, the model in eval mode. Of `training` it heeds epochs, batch,
    optimizer, learning rate and eps ramp; the model should have no dropout.
    """
    device = data.device
    steps = max(1, len(data) // training.batch + (len(data) % training.batch >= 2))
    state = TrainState(model.train(), defense.optimizer(model, training), threat, Stream(generator(device, 0)))
    defense.prepare(state)
    for epoch in range(training.epochs):
        state.epoch, state.noise = epoch, Stream(generator(device, seed, "attack", epoch))
        order = torch.randperm(len(data), generator=generator("cpu", seed, "order", epoch))
        for step, rows in enumerate(order[: steps * training.batch].split(training.batch)):
            state.progress = (epoch * steps + step) / (training.epochs * steps)
            share = ball(training, state.progress)
            state.threat = threat.scaled(share) if share < 1 else threat
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(training, state.progress)
            state.report.clear()
            rows = rows.to(device)
            defense.step(state, data.pixels(rows), data.labels[rows])
        if after:
            model.eval()
            after(epoch)
            model.train()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of images x (N, ...) that `model` gives their label y (N,)."""
    return float((model(x).argmax(1) == y).float().mean())


def attacked(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int, steps: int = 20) -> Tensor:
    """x (N, ...) after PGD with a random start and steps of eps / 4: quick, and no verdict."""
    places = torch.arange(len(x), device=x.device)
    noise = BlockNoise(x.device, derive(seed, "attacked"), len(x), places)
    return PGD(steps=steps).run(model, x, y, threat, noise)
