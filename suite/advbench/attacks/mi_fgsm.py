"""MI-FGSM: FGSM in small steps along a momentum of gradients. Dong et al., CVPR 2018 (arXiv 1710.06081), algorithm 1.

Every gradient enters the momentum with an L1 norm of 1, so that no step outweighs the others. The momentum carries the
iterate over poor local maxima, and what it finds fools other models more often: a good attack for `transfer`.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.pgd import input_gradient
from advbench.seeds import BlockNoise
from advbench.threat import Threat, per_example


class MIFGSM(Attack):
    """Steepest ascent along a momentum of gradients, from the example itself; the last iterate is the candidate."""

    name = "mi-fgsm"
    paper = "arXiv 1710.06081"

    steps: int = Field(default=10, ge=1, le=10_000)
    """Gradient steps (the paper's: 10)."""
    step_size: float | None = Field(default=None, gt=0)
    """Step size as a share of eps. Default: the paper's, one over the number of steps."""
    momentum: float = Field(default=1.0, ge=0)
    """Share of the momentum that the next one keeps, mu in the paper (the paper's: 1)."""

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        del noise
        size = threat.eps * (self.step_size or 1 / self.steps)
        project, x_adv, direction = threat.projection(x), x, torch.zeros_like(x)
        for _ in range(self.steps):
            grad = input_gradient(model, x_adv, y)
            # The floor keeps 0 / 0 at 0.
            length = grad.flatten(1).abs().sum(1).clamp_min(torch.finfo(grad.dtype).tiny)
            direction = self.momentum * direction + grad / per_example(length, grad)
            x_adv = project(threat.step(x_adv, direction, size))
        return x_adv
