"""TRADES: classify the clean image, and say the same of everything around it.

Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically Principled Trade-off between Robustness and Accuracy",
ICML 2019, arXiv 1901.08573, for several classes:

    min_theta E [ cross-entropy(f(x), y) + beta * max_{||x' - x|| <= eps} KL(f(x) || f(x')) ]

with f(x) the probabilities and beta their 1/lambda. The inner maximum is K projected steepest-ascent steps on the
divergence itself, from x + 0.001 * N(0, 1): at x its gradient is zero. Both terms are means over the batch, and both
answers of the divergence learn, the clean one too.

As in the authors' code batch norm is in eval mode while crafting; the clean answer is taken there once and not in
every step.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import ascend
from advbench.defense import Defense, TrainState, batch_norm


class TRADES(Defense):
    """TRADES (Zhang et al. 2019). The history has `divergence`, the second term in nats, without its beta."""

    name = "trades"
    paper = "Zhang et al., ICML 2019, arXiv 1901.08573"

    beta: float = Field(default=6, ge=0)
    """Weight of the divergence (the paper on CIFAR-10: 6). With 0 the weights are those of standard training, at the
    cost of TRADES; but batch norm's running statistics see the adversarial images too."""
    steps: int = Field(default=10, ge=1)
    """Ascent steps K (the paper: 10)."""
    step_size: float = Field(default=0.25, gt=0)
    """Step size as a share of eps (the authors' code: 0.007 at 0.031)."""
    attack_bn: Literal["train", "eval"] = "eval"
    """Batch norm while crafting (the authors' code: eval)."""

    def passes(self) -> tuple[float, float]:
        return self.steps + 3, self.steps + 2

    def weight_passes(self) -> tuple[float, float]:
        # The clean answer that the attack leaves is taken again as well.
        return 3, 2

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        model, threat = state.model, state.threat
        with batch_norm(model, self.attack_bn):
            with torch.no_grad():
                clean = model(x)
            start = x + 0.001 * state.noise.normal(x)
            x_adv = ascend(
                model,
                x,
                clean,
                threat,
                start=start,
                steps=self.steps,
                step_size=self.step_size * threat.eps,
                loss=lambda logits, clean: divergence(clean, logits),
            )
        logits = model(x)
        apart = divergence(logits, model(x_adv)).mean()
        state.report["divergence"] = apart
        return state.cross_entropy(logits, y) + self.beta * apart


def divergence(clean: Tensor, other: Tensor) -> Tensor:
    """KL(softmax(clean) || softmax(other)) of each example in nats; logits (N, C) -> (N,)."""
    sure, said = clean.log_softmax(1), other.log_softmax(1)
    return (sure.exp() * (sure - said)).sum(1)
