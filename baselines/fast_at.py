"""Fast adversarial training: one FGSM step from a random start.

Wong, Rice, Kolter, "Fast is better than free: Revisiting adversarial training", ICLR 2020, arXiv 2001.03994,
algorithm 3:

    d ~ U(ball of radius eps);  d <- clip(d + alpha * sign(grad_d cross-entropy(f(x + d), y)), -eps, eps)

Two forward and two backward passes a step. It may overfit catastrophically: the model learns to break this one
step and falls to any other attack; the history's FGSM and PGD columns show it, and the record is flagged.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import ascend
from advbench.defense import Defense, TrainState, batch_norm


class FastAT(Defense):
    """FGSM with a random start, FGSM-RS (Wong et al. 2020)."""

    name = "fast-at"
    paper = "Wong, Rice, Kolter, ICLR 2020, arXiv 2001.03994"

    step_size: float = Field(default=1.25, gt=0)
    """Step size alpha as a share of eps (the paper: 1.25, that is 10/255 at 8/255)."""
    start_in_box: bool = False
    """Clip the random start to [0, 1] before its gradient is taken. The paper's algorithm and the authors'
    MNIST code do not; their CIFAR-10 code does."""
    attack_bn: Literal["train", "eval"] = "train"
    """Batch norm while crafting (the authors' code: train)."""

    def passes(self) -> tuple[float, float]:
        return 2, 2

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        threat = state.threat
        with batch_norm(state.model, self.attack_bn):
            start = threat.random_start(x, state.noise, box=self.start_in_box)
            x_adv = ascend(state.model, x, y, threat, start=start, steps=1, step_size=self.step_size * threat.eps)
        return state.cross_entropy(state.model(x_adv), y)
