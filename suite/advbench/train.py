"""The one training loop: a job, its data and its defense in, weights and history out.

It owns epochs, order, learning rate, eps ramp, augmentation, validation and checkpoints; the defense owns the
step. A run that was killed goes on from its checkpoint and ends in the same weights as one that was not: every
random stream is named by seed, purpose and epoch, and the checkpoint holds where inside one it stopped.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advbench.attacks.pgd import ascend
from advbench.data.augment import crop_flip
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.passes import counting
from advbench.plan import Job
from advbench.record import Epoch, write_bytes
from advbench.seeds import BlockNoise, Stream, derive, generator
from advbench.task import Training
from advbench.threat import Threat

Tell = Callable[[str, int, int, str], None]
"""Progress: stage, done, of how many, and a few words."""

Weights = dict[str, Tensor]


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


@dataclass
class _Progress:
    """Where training stands; everything here is in the checkpoint."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0
    reports: dict[str, float] = field(default_factory=dict[str, float])
    forward: int = 0
    backward: int = 0
    seconds: float = 0
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    best: Weights = field(default_factory=dict[str, Tensor])
    best_epoch: int = -1
    best_key: tuple[float, float] = (-1, -1)


def train(job: Job, subsets: Subsets, defense: Defense, model: nn.Module, checkpoint: Path, tell: Tell) -> Trained:
    """Train `model` in place. `checkpoint` is read if it belongs to this job, written as training goes on.

    Raises Diverged when an epoch's loss is not finite.
    """
    training, data = job.training, subsets.train
    device = data.stored.device
    threat = Threat(job.threat.norm, float(job.threat.eps))
    steps = max(
        1, len(data) // training.batch + (len(data) % training.batch > 1)
    )  # a batch of one has no BN statistics
    state = TrainState(model, defense.optimizer(model, training), threat, _stream(job, device, 0))
    at = _Progress()
    if _resume(checkpoint, job, state, at, device):
        tell("train", at.epoch, training.epochs, "resumed")
    written = time.monotonic()

    while at.epoch < training.epochs:
        model.train()
        order = torch.randperm(len(data), generator=generator("cpu", job.seed, "order", at.epoch)).to(device)
        if at.step == 0:
            state.noise = _stream(job, device, at.epoch)
            torch.manual_seed(derive(job.seed, "dropout", at.epoch))
        started = time.perf_counter()
        totals = _Totals(at)
        with counting(model) as passes:
            for step in range(at.step, steps):
                rows = order[step * training.batch : (step + 1) * training.batch]
                _set(state, job, threat, (at.epoch * steps + step) / (training.epochs * steps), at.epoch)
                x, y = data.stored[rows], data.labels[rows]
                if training.augment == "crop-flip":
                    x = crop_flip(x, generator(device, job.seed, "augment", at.epoch, step))
                totals.add(defense.step(state, data.scaled(x), y), len(rows), state.report)
                if time.monotonic() - written > 60 * training.checkpoint_minutes and step + 1 < steps:
                    totals.into(at, passes.forward, passes.backward, time.perf_counter() - started)
                    passes.forward = passes.backward = 0
                    at.step, started, totals = step + 1, time.perf_counter(), _Totals(at)
                    _save(checkpoint, job, state, at)
                    written = time.monotonic()
        totals.into(at, passes.forward, passes.backward, time.perf_counter() - started)
        _end_epoch(job, subsets.validation, state, at, min(len(data), steps * training.batch), threat, defense)
        line = at.history[-1]
        tell("train", at.epoch, training.epochs, f"clean {line['clean']:.3f}, PGD {line['pgd']:.3f}")
        _save(checkpoint, job, state, at)
        written = time.monotonic()

    return Trained(_copy(model), at.best, at.best_epoch, tuple(Epoch(**line) for line in at.history))


class _Totals:
    """Sums of one stretch of an epoch, kept on the device so that no step waits for it."""

    def __init__(self, at: _Progress) -> None:
        self.loss: Tensor | float = at.loss_sum
        self.reports: dict[str, Tensor | float] = dict(at.reports)

    def add(self, loss: Tensor, count: int, report: dict[str, Tensor | float]) -> None:
        self.loss = self.loss + loss * count
        for name, value in report.items():
            value = value.detach() if isinstance(value, Tensor) else value  # or an epoch's graphs would pile up
            self.reports[name] = self.reports.get(name, 0.0) + value * count
        report.clear()

    def into(self, at: _Progress, forward: int, backward: int, seconds: float) -> None:
        at.loss_sum = float(self.loss)
        at.reports = {name: float(value) for name, value in self.reports.items()}
        at.forward += forward
        at.backward += backward
        at.seconds += seconds


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
    job: Job, data: Examples, state: TrainState, at: _Progress, seen: int, threat: Threat, defense: Defense
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
            "extra": {name: value / seen for name, value in at.reports.items() if math.isfinite(value)},
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
    device = data.stored.device
    right = torch.zeros(3, device=device)
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
    clean, by_fgsm, by_pgd = (right / len(data)).tolist()
    top = int(torch.cat(predicted).bincount().max())
    return {"clean": clean, "fgsm": by_fgsm, "pgd": by_pgd, "top_class": top / len(data)}


def _copy(model: nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _save(path: Path, job: Job, state: TrainState, at: _Progress) -> None:
    buffer = io.BytesIO()
    torch.save(
        {
            "train_id": job.train_id,
            "at": vars(at),
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "memory": state.memory,
            "noise": state.noise.generator.get_state(),
            "torch": torch.get_rng_state(),
        },
        buffer,
    )
    write_bytes(path, buffer.getvalue())


def _resume(path: Path, job: Job, state: TrainState, at: _Progress, device: torch.device) -> bool:
    """Continue from `path` if it holds this very training; otherwise leave everything as it is."""
    if not path.exists():
        return False
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # a damaged file can fail anywhere in the unpickler; training then starts over
        return False
    if not isinstance(saved, dict) or saved.get("train_id") != job.train_id:
        return False
    vars(at).update(saved["at"])
    at.best_key = (at.best_key[0], at.best_key[1])
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.memory = saved["memory"]
    state.noise.generator.set_state(saved["noise"].cpu())
    torch.set_rng_state(saved["torch"].cpu())
    return True
