"""Entropy-SGD on an adversarial loss: descend what the loss is on average around the weights.

Chaudhari, Choromanska, Soatto, LeCun, Baldassi, Borgs, Chayes, Sagun, Zecchina, "Entropy-SGD: Biasing Gradient Descent
Into Wide Valleys", ICLR 2017, arXiv 1611.01838, algorithm 1. From w, L steps of Langevin dynamics w' look around:

    w', mu <- w
    L times:  w' <- w' - lr' * (grad of the loss at w' - gamma * (w - w')) + sqrt(lr') * noise * N(0, 1)
              mu <- (1 - alpha) * mu + alpha * w'
    w <- w - lr * (w - mu)

Kanai et al. 2021 (arXiv 2103.01400) show that the loss of adversarial training is not smooth, that this one is, and
that adversarial training gains by it. The base crafts anew at every w', so a step costs L times what the base's does.

w - mu goes to the task's optimizer in place of a gradient, as in the authors' code; the paper has gamma * (w - mu) and
a learning rate that makes up for it. Four things differ: the paper draws another batch for every inner step, where
here all L meet the batch of the step; it lets gamma grow ("scoping"); and the authors' code has momentum and weight
decay in the inner steps too, sqrt(2) times the noise, and alpha and 1 - alpha the other way round. Batch norm's
running statistics are those of the places w' that were looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.utils import get_total_norm

from advbench.defense import TrainState
from advbench.wrapper import Wrapper, restored


class EntropySGD(Wrapper):
    """Entropy-SGD around another defense (Chaudhari et al. 2017).

    The history has `away`, the distance ||w - mu|| in weights.
    """

    name = "entropy-sgd"
    paper = "Chaudhari et al., ICLR 2017, arXiv 1611.01838; Kanai et al. 2021, arXiv 2103.01400"

    inner_steps: int = Field(default=20, ge=1)
    """Langevin steps L (the paper: 20). Each is a whole step of the base."""
    inner_lr: float = Field(default=0.1, gt=0)
    """Their step size lr' (the authors' code: 0.1)."""
    gamma: float = Field(default=1e-4, ge=0)
    """Pull back to w, in nats over a squared distance of weights (the authors on MNIST: 1e-4 at the beginning)."""
    noise: float = Field(default=1e-4, ge=0)
    """Of the Langevin dynamics, in weights over sqrt(lr') (the paper: 1e-4)."""
    alpha: float = Field(default=0.75, gt=0, le=1)
    """Weight of the newest w' in mu (the paper: 0.75; the authors' code: 0.25)."""

    def passes(self) -> tuple[float, float]:
        forward, backward = self.base.passes()
        return self.inner_steps * forward, self.inner_steps * backward

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        """Returns the mean of the loss over the places that were looked at."""
        weights = [weight for weight in state.model.parameters() if weight.requires_grad]
        centre = [weight.detach().clone() for weight in weights]
        means = [weight.clone() for weight in centre]
        total = torch.zeros((), device=x.device)
        with restored(weights):
            for _ in range(self.inner_steps):
                total += self.base.backward(state, x, y)
                self._look(state, weights, centre, means)
        apart = [place - mean for place, mean in zip(centre, means, strict=True)]
        for weight, difference in zip(weights, apart, strict=True):
            weight.grad = difference
        state.optimizer.step()
        state.report["away"] = get_total_norm(apart)
        return total / self.inner_steps

    @torch.no_grad()
    def _look(
        self, state: TrainState, weights: Sequence[Tensor], centre: Sequence[Tensor], means: Sequence[Tensor]
    ) -> None:
        """One Langevin step of the weights, and of their mean."""
        draws, spread = state.noise.generator, self.noise * math.sqrt(self.inner_lr)
        for weight, place, mean in zip(weights, centre, means, strict=True):
            pull = self.gamma * (place - weight)
            weight.add_((pull if weight.grad is None else pull - weight.grad) * self.inner_lr)
            if spread:
                weight.add_(torch.empty_like(weight).normal_(generator=draws) * spread)
            mean.lerp_(weight, self.alpha)
