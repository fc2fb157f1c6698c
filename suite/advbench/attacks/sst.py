"""SST: stochastic substitute training. Hashemi, Cusack and Keller, AISec 2018 (arXiv 1810.10031).

A gray-box attack for models whose gradient says nothing: a network of one's own is fitted to what the target answers
to noisy copies of the images at hand, and its gradient is followed instead. Without the noise it is distillation
(Papernot et al., arXiv 1602.02697, without their synthetic data), which learns the target at the images and not
around them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.pgd import ascend
from advbench.losses import margin
from advbench.seeds import BlockNoise, derive, generator, own_streams
from advbench.threat import Threat

LEVELS = 20
"""Noise levels above 0: the authors' code draws from 0 %, 5 %, ..., 100 %."""


class SST(Attack):
    """A substitute fitted to the target's answers to noisy images, and the margin attack on it."""

    name = "sst"
    paper = "arXiv 1810.10031"
    whole_block: ClassVar[bool] = True
    """The substitute learns from all of its examples together."""

    noise: float = Field(default=1.0, ge=0, le=1)
    """Largest noise added to training images, uniform in +-noise pixels; each batch draws its level in 0, 5, ..., 100 %
    of it (the authors': 1). 0: distillation without noise."""
    epochs: int = Field(default=100, ge=1, le=10_000)
    """Passes over the images at each of the two learning rates."""
    batch: int = Field(default=32, ge=1)
    """Images an optimizer step."""
    lr: float = Field(default=1e-3, gt=0)
    """Adam's learning rate in the first half of the training; in the second a tenth of it (the authors': 1e-3)."""
    width: int = Field(default=32, ge=1)
    """Channels of the three convolutions (the authors': 64)."""
    hidden: int = Field(default=256, ge=1)
    """Units of the linear layer behind them (the authors': 2048)."""
    steps: int = Field(default=100, ge=1, le=10_000)
    """Steps of the attack on the substitute (the authors': 300 to 500 of Adam)."""

    @property
    def follows_gradient(self) -> bool:
        return False

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        if not len(x):
            return x
        substitute = self.substitute(model, x, noise.seed)
        start = threat.random_start(x, noise)
        return ascend(
            substitute,
            x,
            y,
            threat,
            start=start,
            steps=self.steps,
            step_size=threat.eps / 4,
            schedule="linear",
            loss=lambda logits, labels: -margin(logits, labels),
        )

    def substitute(self, model: nn.Module, x: Tensor, seed: int) -> nn.Module:
        """A network fitted by mean squared error to the logits of `model` around the images x (N, C, H, W), frozen.

        It asks `model` 2 * epochs times for each image, and for no gradient and no label.
        """
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        network = self._network(x, classes, seed)
        draws = generator(x.device, seed, "substitute")
        for lr in (self.lr, self.lr / 10):
            optimizer = torch.optim.Adam(network.parameters(), lr)
            for _ in range(self.epochs):
                order = torch.randperm(len(x), generator=draws, device=x.device)
                for rows in order.split(self.batch):
                    images = self._noisy(x[rows], draws)
                    with torch.no_grad():
                        goal = model(images)
                    with torch.enable_grad():
                        loss = nn.functional.mse_loss(network(images), goal)
                        optimizer.zero_grad()
                        loss.backward()
                    optimizer.step()
        return network.eval().requires_grad_(False)

    def _noisy(self, x: Tensor, draws: torch.Generator) -> Tensor:
        level = torch.randint(LEVELS + 1, (), generator=draws, device=x.device) / LEVELS * self.noise
        return (x + level * torch.empty_like(x).uniform_(-1, 1, generator=draws)).clamp(0, 1)

    def _network(self, x: Tensor, classes: int, seed: int) -> nn.Module:
        channels, height, width = x.shape[1:]
        pool = 2 if min(height, width) > 1 else 1
        features = self.width * (height // pool) * (width // pool)
        # Layers draw their weights from torch's global stream; training must not notice.
        with own_streams(derive(seed, "network")):
            network = nn.Sequential(
                nn.Conv2d(channels, self.width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(self.width, self.width, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(self.width, self.width, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(pool),
                nn.Flatten(),
                nn.Linear(features, self.hidden),
                nn.ReLU(),
                nn.Linear(self.hidden, classes),
            )
        return network.to(x)
