"""PGD adversarial training: train on the strongest perturbation that K steps find.

Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks",
ICLR 2018, arXiv 1706.06083, equation 2.1:

    min_theta E max_{||d|| <= eps} cross-entropy(f(x + d), y)

The inner maximum is K projected steepest-ascent steps from a random point of the ball, clipped to the pixel
box. The weights then see the adversarial batch alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import ascend
from advbench.defense import Defense, TrainState, batch_norm


class PGDAT(Defense):
    """PGD-AT (Madry et al. 2018)."""

    name = "pgd-at"
    paper = "Madry et al., ICLR 2018, arXiv 1706.06083"

    steps: int = Field(default=10, ge=1)
    """Ascent steps K (the authors' CIFAR-10 configuration: 10; the paper's text says 7)."""
    step_size: float = Field(default=0.25, gt=0)
    """Step size as a share of eps (the authors' CIFAR-10 value: 2/8)."""
    attack_bn: Literal["train", "eval"] = "train"
    """Batch norm while crafting (the authors' code: train)."""

    def passes(self) -> tuple[float, float]:
        return self.steps + 1, self.steps + 1

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        threat = state.threat
        with batch_norm(state.model, self.attack_bn):
            start = threat.random_start(x, state.noise)
            x_adv = ascend(
                state.model, x, y, threat, start=start, steps=self.steps, step_size=self.step_size * threat.eps
            )
        return state.cross_entropy(state.model(x_adv), y)
