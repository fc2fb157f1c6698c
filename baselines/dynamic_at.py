"""Dynamic adversarial training: attack only until the inner maximum is solved as well as this epoch asks.

Wang, Ma, Bailey, Yi, Zhou, Gu, "On the Convergence and Robustness of Adversarial Training", ICML 2019,
arXiv 2112.08304, algorithm 1. How far an iterate x_k is from a maximum of its ball is its FOSC,

    c(x_k) = max_{x in ball} <x - x_k, g> = eps * ||g||_dual - <x_k - x0, g>,   g = grad of its cross-entropy at x_k

in nats. The first of at most K ascent steps is taken by everyone; then an example goes on only while
c(x_k) > c_t, and the threshold falls in a straight line over the epochs t = 0, 1, ...:

    c_t = max(c_max - t * c_max / T', 0)

Early epochs train on weak examples and late ones on strong ones. Here an example that has stopped leaves the batch, so
its passes are saved; one gradient serves the criterion at a point and the step from it.

The defaults are the paper's. The authors' code (CIFAR-10) differs: it starts at a random point and measures c from
there (`start = "random"`, `fosc_ref = "start"`), and weighs each example's loss (`loss_weight = "ce"`).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from advbench.attacks.pgd import input_gradient
from advbench.defense import Defense, TrainState, batch_norm
from advbench.losses import cross_entropy


class DynamicAT(Defense):
    """FOSC-dynamic adversarial training (Wang et al. 2019).

    The history has the mean over the epoch's batches of `threshold` (c_t), `steps` (ascent steps an example), and the
    median and 90th percentile of `fosc` and of `fosc_box`, the same with the pixel box in the maximum: each example's
    at the last point where its gradient was taken. That is where it stopped or, if it went all K steps, the point
    before its last: another gradient only to know would cost a pass.
    """

    name = "dynamic-at"
    paper = "Wang et al., ICML 2019, arXiv 2112.08304"
    norms = ("Linf", "L2")

    steps: int = Field(default=10, ge=1)
    """Most ascent steps K (the paper: 10)."""
    step_size: float = Field(default=0.25, gt=0)
    """Step size as a share of eps (the paper: 1/4)."""
    c_max: float = Field(default=0.5, ge=0)
    """Threshold of the first epoch, in nats (the paper: 0.5). With 0 an example stops early only where its
    criterion is 0: at the corner of its ball that the gradient points to, or where there is no gradient."""
    decay: float = Field(default=5 / 6, gt=0, le=1)
    """Share of the epochs after which the threshold is 0 (the paper: T' = 100 of 120 epochs on CIFAR-10, 40 of 50 on
    MNIST)."""
    start: Literal["image", "random"] = "image"
    """Where the ascent starts: the clean image (the paper), or a random point of the ball, not clipped to [0, 1]
    before its gradient is taken (the authors' code)."""
    fosc_ref: Literal["image", "start"] = "image"
    """The x0 that the criterion is measured from: the clean image (the paper), or the start (the authors' code). From a
    random start it is no longer the gap of the ball, and can be negative."""
    loss_weight: Literal["none", "ce"] = "none"
    """What multiplies an example's loss from the second epoch on: nothing (the paper), or its cross-entropy as a
    constant (the authors' code, which takes it from a pass in eval mode and not from the training pass)."""
    attack_bn: Literal["eval"] = "eval"
    """Batch norm while crafting (the authors' code: eval)."""

    @field_validator("attack_bn", mode="before")
    @classmethod
    def _no_batch_statistics(cls, value: object) -> object:
        if value == "train":
            raise ValueError(
                'should be "eval": in train mode those that stop would change the statistics of the others'
            )
        return value

    def passes(self) -> tuple[float, float]:
        """At most; an example that stops after k steps costs k + 2."""
        return self.steps + 1, self.steps + 1

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        with batch_norm(state.model, self.attack_bn):
            x_adv = self._ascend(state, x, y)
        logits = state.model(x_adv)
        if self.loss_weight == "none" or state.epoch == 0:
            return state.cross_entropy(logits, y)
        state.smoothed = True
        return (cross_entropy(logits, y).detach() * cross_entropy(logits, y, state.smoothing)).mean()

    def threshold(self, state: TrainState) -> float:
        """c_t in nats: constant over an epoch, whose t / T' is the share of training done when it began."""
        if state.memory.get("epoch") != state.epoch:
            state.memory.update(epoch=state.epoch, begun=state.progress)
        return max(self.c_max * (1 - state.memory["begun"] / self.decay), 0)

    def _ascend(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        model, threat, threshold = state.model, state.threat, self.threshold(state)
        start = x if self.start == "image" else threat.random_start(x, state.noise, box=False)
        reference = x if self.fosc_ref == "image" else start
        # For every example: where it ended, and the last point that was looked at, with the gradient there.
        end, seen, slope = (torch.empty_like(x) for _ in range(3))
        # The examples still running: their rows, and what belongs to them.
        rows, x_adv, centre, origin, labels = torch.arange(len(x), device=x.device), start, x, reference, y
        project, taken = threat.projection(x), 0
        for step in range(self.steps):
            grad = input_gradient(model, x_adv, labels)
            if step:
                going = (threat.fosc(x_adv, origin, grad) > threshold).nonzero().squeeze(1)
                if len(going) < len(rows):
                    end[rows], seen[rows], slope[rows] = x_adv, x_adv, grad
                    if not len(going):
                        break
                    rows, x_adv, centre, origin, labels, grad = (
                        of_all[going] for of_all in (rows, x_adv, centre, origin, labels, grad)
                    )
                    project = threat.projection(centre)
            before, x_adv = x_adv, project(threat.step(x_adv, grad, self.step_size * threat.eps))
            taken += len(rows)
            if step + 1 == self.steps:
                end[rows], seen[rows], slope[rows] = x_adv, before, grad
        state.report |= {"threshold": threshold, "steps": taken / len(x)}
        for name, gap in (
            ("fosc", threat.fosc(seen, reference, slope)),
            ("fosc_box", threat.fosc(seen, x, slope, box=True)),
        ):
            state.report |= {f"{name}_median": gap.quantile(0.5), f"{name}_p90": gap.quantile(0.9)}
        return end
