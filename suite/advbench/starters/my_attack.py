"""An attack: it proposes images, and never says whether they fool the model. The ledger alone decides that."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.pgd import input_gradient
from advbench.seeds import BlockNoise
from advbench.threat import Threat


class MyAttack(Attack):
    """From a random point of the ball, steps up the loss, each projected back."""

    name = "my-attack"
    paper = "none yet"
    # The norms it is defined for; a task with another one is refused.
    norms = ("Linf", "L2")

    # A field is a hyper-parameter: task files may set it, what is not declared is refused, records keep its value.
    steps: int = Field(default=10, ge=1)
    """Steps of ascent, each of eps/4."""

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        # `noise` gives each example its own numbers, whoever shares its batch: the batch size changes no verdict.
        x_adv = threat.random_start(x, noise)
        for _ in range(self.steps):
            # Of each example's own loss, and to the pixels only: the parameters are frozen here.
            grad = input_gradient(model, x_adv, y)
            # The threat knows what steepest means in its norm, and what lies in both the ball and [0, 1].
            x_adv = threat.project(threat.step(x_adv, grad, threat.eps / 4), x)
        return x_adv
