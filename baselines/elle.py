"""ELLE: FGSM training with a loss that should be linear between random points of the ball, without double backward.

Abad Rocamora, Liu, Chrysos, Olmos, Cevher, "Efficient Local Linearity Regularization to Overcome Catastrophic
Overfitting", ICLR 2024, arXiv 2401.11618:

    a, b ~ U(ball of radius eps around x);  t ~ U(0, 1);  c = (1 - t) * a + t * b
    E = mean ((1 - t) * l(a) + t * l(b) - l(c))^2;   loss = cross-entropy(f(x_adv), y) + lambda * E

with l an example's cross-entropy in nats and x_adv = x + eps * sign(grad_x l(x)), one step from the image. ELLE-A
(`adaptive`) starts at 0 and sets lambda to its weight when a batch's E is above mean + 2 standard deviations of all
before it; otherwise lambda decays. The three points go through the network in one pass of 3 N images. x_adv is clipped
to the pixel box (the authors' code: not); a, b and c are not.

With too small a lambda gradients are masked all the same: in a published benchmark (arXiv 2604.22853, CIFAR-10), which
has lambda = 1 and a random start, one seed of three kept 37 % against PGD-50 and 3 % against AutoAttack.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import ascend
from advbench.defense import Defense, TrainState, batch_norm
from advbench.losses import cross_entropy
from advbench.threat import per_example


class ELLE(Defense):
    """ELLE and ELLE-A (Abad Rocamora et al. 2024).

    The history has `nonlinearity`, E in nats squared, and `weight`, lambda.
    """

    name = "elle"
    paper = "Abad Rocamora et al., ICLR 2024, arXiv 2401.11618"
    norms = ("Linf", "L2")

    weight: float = Field(default=1000, ge=0)
    """lambda, one over nats (the authors' code on CIFAR-10: 1000 for eps up to 8/255, 5000 up to 20/255 and 10000
    above; with `adaptive` 4000 for any eps)."""
    adaptive: bool = False
    """ELLE-A: `weight` is what lambda is set to."""
    decay: float = Field(default=0.99, ge=0, le=1)
    """Of ELLE-A: what multiplies lambda in a step that does not set it (the authors' code: 0.99)."""
    sensitivity: float = Field(default=2, ge=0)
    """Of ELLE-A: standard deviations above the mean that set it (the authors' code: 2)."""
    step_size: float = Field(default=1, gt=0)
    """Step size from the image as a share of eps (the authors' code: 1)."""
    attack_bn: Literal["train", "eval"] = "train"
    """Batch norm while crafting (the authors' code: train)."""

    repeatable = True

    def passes(self) -> tuple[float, float]:
        return 5, 5

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        model, threat = state.model, state.threat
        with batch_norm(model, self.attack_bn):
            x_adv = ascend(model, x, y, threat, start=x, steps=1, step_size=self.step_size * threat.eps)
        loss = state.cross_entropy(model(x_adv), y)
        error = self._nonlinearity(state, x, y)
        weight = state.memory.get("weight", 0.0) if self.adaptive else self.weight
        state.report |= {"nonlinearity": error.detach(), "weight": weight}
        return loss + weight * error

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        loss = super().step(state, x, y)
        if self.adaptive:
            self._adapt(state, torch.as_tensor(state.report["nonlinearity"]))
        return loss

    def _nonlinearity(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        a, b = (state.threat.random_start(x, state.noise, box=False) for _ in range(2))
        t = (state.noise.uniform(x.flatten(1)[:, :1]).squeeze(1) + 1) / 2
        c = a + per_example(t, x) * (b - a)
        at_a, at_b, at_c = cross_entropy(state.model(torch.cat([a, b, c])), y.repeat(3)).chunk(3)
        return ((1 - t) * at_a + t * at_b - at_c).square().mean()

    def _adapt(self, state: TrainState, error: Tensor) -> None:
        """Find lambda of the next step. Of a batch in pieces the last one's error stands for all."""
        memory, nothing = state.memory, torch.zeros_like(error)
        seen, mean, squares = memory.get("seen", 0), memory.get("mean", nothing), memory.get("squares", nothing)
        # Mean and sum of squared deviations of those before (Welford), on the device: no step waits for them.
        high = (error > mean + self.sensitivity * (squares / max(seen, 1)).sqrt()) & (seen > 2)
        memory["weight"] = torch.where(high, self.weight, memory.get("weight", nothing) * self.decay)
        memory["seen"] = seen + 1
        memory["mean"] = mean + (error - mean) / (seen + 1)
        memory["squares"] = squares + (error - mean) * (error - memory["mean"])
