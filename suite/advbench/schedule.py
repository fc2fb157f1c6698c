"""Learning rate and eps along a training, as functions of the share of it that is done."""

from __future__ import annotations

import math

from advbench.recipe import Training


def learning_rate(training: Training, progress: float) -> float:
    """The schedule at a share `progress` of training, 0 to 1."""
    warm = training.warmup / training.epochs
    peak = training.lr * (progress / warm if progress < warm else 1)
    match training.schedule:
        case "cyclic":
            rising, falling = progress / training.peak, (1 - progress) / (1 - training.peak)
            return peak * min(rising, falling)
        case "piecewise":
            return peak * training.decay ** sum(progress >= m for m in training.milestones)
        case "cosine":
            return peak * (1 + math.cos(math.pi * progress)) / 2
        case "constant":
            return peak


def ball(training: Training, progress: float) -> float:
    """The share of eps that training meets at a share `progress` of it: below 1 during `eps_ramp`."""
    ramp = training.eps_ramp / training.epochs
    return progress / ramp if progress < ramp else 1
