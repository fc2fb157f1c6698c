"""FGSM: one step of the size of the ball. Goodfellow, Shlens, Szegedy, ICLR 2015 (arXiv 1412.6572), section 4."""

from __future__ import annotations

from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.pgd import ascend
from advbench.seeds import BlockNoise
from advbench.threat import Threat


class FGSM(Attack):
    """x + eps * (steepest ascent direction of the cross-entropy at x), no random start."""

    name = "fgsm"
    paper = "arXiv 1412.6572"

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        del noise
        return ascend(model, x, y, threat, start=x, steps=1, step_size=threat.eps)
