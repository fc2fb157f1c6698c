"""FGSM-MEP: the attack on an example starts where a momentum of its gradients over all epochs has led.

Jia, Zhang, Wei, Wu, Ma, Wang, Cao, "Prior-Guided Adversarial Initialization for Fast Adversarial Training" (FGSM-PGI),
ECCV 2022, arXiv 2207.08859. Of its three priors this is the momentum of all previous epochs. Each example i has a
perturbation p_i and a momentum m_i; at the epochs 0, R, 2 R, ... they are eps * random signs and 0. In each epoch

    g = grad_x cross-entropy(f(x + p_i), y);  m_i <- mu * m_i + g / ||g||_1
    x_adv = clip(x + p_i + alpha * sign(g));  p_i <- clip(p_i + alpha * sign(m_i)), both to ball and box
    loss = cross-entropy(f(x_adv), y) + lambda * mean (f(x_adv) - f(x + p_i))^2

with the mean over examples and classes, and the gradient of both logits. Two forward passes, and three backward ones:
the pass at x + p_i is differentiated to the pixels for the attack and to the weights for the loss.

The prior belongs to the training set's row, not to what augmentation makes of it: as in the authors' code a flipped or
shifted image meets the perturbation of the one before, unmoved. p_i and m_i are kept as float16, in checkpoints too:
together 4 bytes for every pixel and channel of the training set, on the device, 0.6 GB for CIFAR-10 and no choice for
ImageNet at 224 (0.8 TB). p_i is clipped to the ball again when it is read, and x + p_i, as in the authors' code, not to
the box. m_i counts by its signs alone: g is divided by the mean size of its entries rather than by their sum, which
would leave shares too small for float16, and by each example's own, where the authors' code takes the whole batch's.
That code also smooths its labels by 0.4, in the attack too; here the task's `label_smoothing` is for the weights.

One process: an example's prior would have to follow it from process to process.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advbench.defense import Defense, TrainState
from advbench.losses import cross_entropy
from advbench.threat import per_example


class FGSMPGI(Defense):
    """FGSM-PGI with momentum over epochs, FGSM-MEP (Jia et al. 2022).

    The history has `drift`, the mean squared distance between the two logits.
    """

    name = "fgsm-pgi"
    paper = "Jia et al., ECCV 2022, arXiv 2207.08859"
    norms = ("Linf",)

    weight: float = Field(default=10, ge=0)
    """lambda (the authors' code on CIFAR-10: 10)."""
    momentum: float = Field(default=0.3, ge=0)
    """mu, what is left of the momentum after an epoch (the authors' code: 0.3)."""
    reset: int = Field(default=40, ge=1)
    """Epochs R after which priors and momenta start anew (the authors' code: 40 of 110)."""
    step_size: float = Field(default=1, gt=0)
    """Step size alpha as a share of eps (the authors' code: 1)."""

    repeatable = True

    def passes(self) -> tuple[float, float]:
        return 2, 3

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        model, eps, project = state.model, state.threat.eps, state.threat.projection(x)
        prior, momentum = self._recalled(state, x)
        start = (x + prior).requires_grad_()
        before = model(start)
        # In train mode, as it is half of the loss.
        slope = torch.autograd.grad(cross_entropy(before, y).sum(), start, retain_graph=True)[0]
        size = slope.flatten(1).abs().mean(1).clamp_min(torch.finfo(slope.dtype).tiny)
        momentum = self.momentum * momentum + slope / per_example(size, slope)
        start = start.detach()
        moved = project(start + self.step_size * eps * momentum.sign()) - x
        state.memory.setdefault("next", []).append((state.rows, moved.half(), momentum.half()))
        after = model(project(start + self.step_size * eps * slope.sign()))
        drift = (after - before).square().mean()
        state.report["drift"] = drift.detach()
        return state.cross_entropy(after, y) + self.weight * drift

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        """The usual one; priors move when all pieces are through, so that a step taken again begins at the same."""
        memory = state.memory
        memory["next"] = []
        loss = super().step(state, x, y)
        for name in ("prior", "momentum"):
            if name not in memory:
                memory[name] = torch.zeros(state.examples, *x.shape[1:], dtype=torch.float16, device=x.device)
        for rows, prior, momentum in memory.pop("next"):
            memory["prior"][rows], memory["momentum"][rows] = prior, momentum
        return loss

    def _recalled(self, state: TrainState, x: Tensor) -> tuple[Tensor, Tensor]:
        eps = state.threat.eps
        if state.epoch % self.reset == 0:
            return eps * state.noise.uniform(x).sign(), torch.zeros_like(x)
        prior, momentum = (state.memory[name][state.rows].to(x.dtype) for name in ("prior", "momentum"))
        return prior.clamp(-eps, eps), momentum
