"""The one training loop: a job, its data and its defense in, weights and history out.

It owns epochs, order, learning rate, eps ramp, augmentation, validation and checkpoints; the defense owns the
step. A run that was killed goes on from its checkpoint and ends in the same weights as one that was not: every
random stream is named by seed, purpose and epoch, and the checkpoint holds where inside one it stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from advbench.attacks.pgd import ascend
from advbench.checkpoint import Progress, Weights, resume, save
from advbench.data.augment import crop_flip
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.passes import counting
from advbench.plan import Job
from advbench.record import Epoch
from advbench.seeds import BlockNoise, Stream, derive, generator
from advbench.task import Training
from advbench.threat import Threat

Tell = Callable[[str, int, int, str], None]
"""Progress: stage, done, of how many, and a few words."""


class Diverged(Exception):
    """The training loss is no longer a finite number; `history` holds the epochs before."""

    def __init__(self, message: str, history: tuple[Epoch, ...]) -> None:
        super().__init__(message)
        self.history = history


@dataclass(frozen=True)
class Trained:
    """What training leaves."""

    last: Weights
    best: Weights
    """By PGD accuracy on validation, then clean accuracy, then the earlier epoch; a defense that never meets an
    attack is chosen by clean accuracy first, or an early, hardly trained epoch would stand for it."""
    best_epoch: int
    history: tuple[Epoch, ...]


def learning_rate(training: Training, progress: float) -> float:
    """The schedule at a share `progress` of training, 0 to 1."""
    match training.schedule:
        case "cyclic":
            rising, falling = progress / training.peak, (1 - progress) / (1 - training.peak)
            return training.lr * min(rising, falling)
        case "piecewise":
            return training.lr * training.decay ** sum(progress >= m for m in training.milestones)
        case "cosine":
            return training.lr * (1 + math.cos(math.pi * progress)) / 2
        case "constant":
            return training.lr


def train(job: Job, subsets: Subsets, defense: Defense, model: nn.Module, checkpoint: Path, tell: Tell) -> Trained:
    """Train `model` in place. `checkpoint` is read if it belongs to this job, written as training goes on.

    Raises Diverged when an epoch's loss is not finite.
    """
    training, data = job.training, subsets.train
    device = data.device
    threat = Threat(job.threat.norm, float(job.threat.eps))
    # The last, smaller batch counts too, unless it is a single example, which has no batch statistics.
    steps = max(1, len(data) // training.batch + (len(data) % training.batch > 1))
    state = TrainState(model, defense.optimizer(model, training), threat, _stream(job, device, 0))
    at = Progress()
    if resume(checkpoint, job, device, state, at):
        tell("train", at.epoch, training.epochs, "resumed")
    written = time.monotonic()

    while at.epoch < training.epochs:
        model.train()
        order = torch.randperm(len(data), generator=generator("cpu", job.seed, "order", at.epoch))
        left = order[at.step * training.batch : steps * training.batch]
        if at.step == 0:
            state.noise = _stream(job, device, at.epoch)
            torch.manual_seed(derive(job.seed, "dropout", at.epoch))
        started = time.perf_counter()
        totals = _Totals(at)
        with counting(model) as passes, closing(data.batches(left, training.batch)) as batches:
            for step, (x, y) in enumerate(batches, at.step):
                _set(state, job, threat, (at.epoch * steps + step) / (training.epochs * steps), at.epoch)
                if training.augment == "crop-flip":
                    x = crop_flip(x, generator(device, job.seed, "augment", at.epoch, step))
                totals.add(defense.step(state, data.scaled(x), y), len(y), state.report)
                if time.monotonic() - written > 60 * training.checkpoint_minutes and step + 1 < steps:
                    totals.into(at, passes.forward, passes.backward, started)
                    passes.forward = passes.backward = 0
                    at.step, started, totals = step + 1, time.perf_counter(), _Totals(at)
                    save(checkpoint, job, device, state, at)
                    written = time.monotonic()
        totals.into(at, passes.forward, passes.backward, started)
        _end_epoch(job, subsets.validation, state, at, min(len(data), steps * training.batch), threat, defense)
        line = at.history[-1]
        tell("train", at.epoch, training.epochs, f"clean {line['clean']:.3f}, PGD {line['pgd']:.3f}")
        save(checkpoint, job, device, state, at)
        written = time.monotonic()

    return Trained(_copy(model), at.best, at.best_epoch, tuple(Epoch(**line) for line in at.history))


class _Totals:
    """Sums of one stretch of an epoch, kept on the device so that no step waits for it."""

    def __init__(self, at: Progress) -> None:
        self.loss: Tensor | float = at.loss_sum
        self.reports: dict[str, tuple[Tensor | float, int]] = dict(at.reports)

    def add(self, loss: Tensor, count: int, report: dict[str, Tensor | float]) -> None:
        self.loss = self.loss + loss * count
        for name, value in report.items():
            value = value.detach() if isinstance(value, Tensor) else value  # or an epoch's graphs would pile up
            total, examples = self.reports.get(name, (0.0, 0))
            self.reports[name] = (total + value * count, examples + count)
        report.clear()

    def into(self, at: Progress, forward: int, backward: int, started: float) -> None:
        at.loss_sum = float(self.loss)  # waits for the device, so the clock is read after it
        at.reports = {name: (float(total), examples) for name, (total, examples) in self.reports.items()}
        at.forward += forward
        at.backward += backward
        at.seconds += time.perf_counter() - started


def _stream(job: Job, device: torch.device, epoch: int) -> Stream:
    return Stream(generator(device, job.seed, "attack", epoch))


def _set(state: TrainState, job: Job, threat: Threat, progress: float, epoch: int) -> None:
    ramp = job.training.eps_ramp / job.training.epochs
    state.threat = threat.scaled(progress / ramp) if progress < ramp else threat
    state.progress, state.epoch = progress, epoch
    rate = learning_rate(job.training, progress)
    for group in state.optimizer.param_groups:
        group["lr"] = rate


def _end_epoch(
    job: Job, data: Examples, state: TrainState, at: Progress, seen: int, threat: Threat, defense: Defense
) -> None:
    loss = at.loss_sum / seen
    if not math.isfinite(loss):
        lines = tuple(Epoch(**line) for line in at.history)
        raise Diverged(f"the training loss is {loss} in epoch {at.epoch + 1} of {job.training.epochs}", lines)
    quick = validate(state.model, data, threat, job.evaluation.batch)
    at.history.append(
        {
            "epoch": at.epoch + 1,
            "loss": loss,
            **quick,
            "eps": state.threat.eps,
            "lr": learning_rate(job.training, state.progress),
            "seconds": round(at.seconds, 3),
            "forward": at.forward,
            "backward": at.backward,
            # A record holds finite numbers only; a report of NaN must not cost the job at its end.
            "extra": {name: total / n for name, (total, n) in at.reports.items() if math.isfinite(total)},
        }
    )
    key = (quick["pgd"], quick["clean"]) if defense.adversarial else (quick["clean"], quick["pgd"])
    if key > at.best_key:
        at.best, at.best_epoch, at.best_key = _copy(state.model), at.epoch + 1, key
    at.epoch, at.step, at.loss_sum, at.reports = at.epoch + 1, 0, 0, {}
    at.forward = at.backward = 0
    at.seconds = 0


def validate(model: nn.Module, data: Examples, threat: Threat, batch: int) -> dict[str, float]:
    """Accuracies on `data` at the full eps: clean, FGSM, PGD-10, and the share of the most predicted class.

    The PGD is quick on purpose (10 steps of eps/4, one start): it chooses checkpoints and shows a collapse,
    it is no verdict. Every epoch meets the same random starts, whatever the batch.
    """
    model.eval()
    device = data.device
    right = torch.zeros(3, dtype=torch.int64, device=device)
    predicted: list[Tensor] = []
    for first in range(0, len(data), batch):
        rows = slice(first, first + batch)
        x, y = data.pixels(rows), data.labels[rows]
        places = torch.arange(first, first + len(y), device=device)
        noise = BlockNoise(device, derive(0, "validation"), len(data), places)
        fgsm = ascend(model, x, y, threat, start=x, steps=1, step_size=threat.eps)
        pgd = ascend(model, x, y, threat, start=threat.random_start(x, noise), steps=10, step_size=threat.eps / 4)
        with torch.no_grad():
            guesses = [model(images).argmax(1) for images in (x, fgsm, pgd)]
        predicted.append(guesses[0])
        right += torch.stack([(guess == y).sum() for guess in guesses])
    model.train()
    clean, by_fgsm, by_pgd = (count / len(data) for count in right.tolist())
    top = int(torch.cat(predicted).bincount().max())
    return {"clean": clean, "fgsm": by_fgsm, "pgd": by_pgd, "top_class": top / len(data)}


def _copy(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
