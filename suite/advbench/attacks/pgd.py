"""PGD: projected steepest ascent on the cross-entropy. Madry et al., ICLR 2018 (arXiv 1706.06083), section 2.1."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.losses import cross_entropy
from advbench.seeds import BlockNoise
from advbench.threat import Threat, per_example


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of each example's own cross-entropy to its pixels, of x's shape.

    `autograd.grad` to the input never computes parameter gradients, so training gradients stay untouched.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = cross_entropy(model(x), y).sum()
    return torch.autograd.grad(loss, x)[0]


def ascend(
    model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, start: Tensor, steps: int, step_size: float
) -> Tensor:
    """`steps` times: step along the steepest ascent direction, project. Returns the last iterate.

    x and start (N, ...) in [0, 1], y (N,), step_size in pixel units of the threat's norm. In L1, where a step moves few
    pixels and the projection gives way in all, the best point is missed by a part of a step.
    """
    project = threat.projection(x)
    x_adv = start
    for _ in range(steps):
        x_adv = project(threat.step(x_adv, input_gradient(model, x_adv, y), step_size))
    return x_adv


class PGD(Attack):
    """PGD with a random start in the ball; the last iterate of every restart is the candidate."""

    name = "pgd"
    paper = "arXiv 1706.06083"

    steps: int = Field(default=20, ge=1, le=10_000)
    """Gradient steps a restart (the paper's CIFAR-10 evaluation: 20)."""
    step_size: float = Field(default=0.25, gt=0)
    """Step size as a share of eps (the paper's 2/255 at 8/255 is 0.25)."""
    random_start: bool = True

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        start = threat.random_start(x, noise) if self.random_start else x
        found = ascend(model, x, y, threat, start=start, steps=self.steps, step_size=self.step_size * threat.eps)
        # Where a gradient was not finite the iterate is lost, and its start may fool the model yet.
        return torch.where(per_example(found.isfinite().flatten(1).all(1), found), found, start)
