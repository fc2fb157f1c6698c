"""Adversarial weight perturbation: train where the weights of the step are worst, layer by layer.

Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020, arXiv 2004.05884,
algorithm 1 with one alternation. Around any defense of loss L(w) on adversarial examples x':

    v_l = gamma * ||w_l|| * g_l / ||g_l||,   g = grad of L at w,   for every weight of two dimensions and more
    w   = (w + v) - lr * (grad of L at w + v, on the same x') - v

The examples are crafted once, at w; a step costs one more training pass. (Around fast-bat, whose gradient goes through
its attack, that is made again.) Biases and batch norm stay where they are, and batch norm's running statistics are
those of w. The authors take the optimizer's step at w + v and take v off again, where weight decay acts on w + v and
rounding leaves a trace; here w is restored bit for bit, and then the optimizer steps. Around TRADES their statistics
are those of w + v, and the first 9 of 200 epochs are unperturbed; around PGD-AT the passes of its attack, at w, move
them too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from advbench.wrapper import Perturbed


class AWP(Perturbed):
    """Adversarial weight perturbation around another defense (Wu et al. 2020).

    The history has `rise`, how much the perturbation adds to the loss, in nats.
    """

    name = "awp"
    paper = "Wu, Xia, Wang, NeurIPS 2020, arXiv 2004.05884"

    gamma: float = Field(default=0.01, ge=0, le=1)
    """Length of each layer's perturbation as a share of the length of its weights (the paper: 0.01 around pgd-at,
    0.005 around trades)."""

    def perturb(self, weights: Sequence[Tensor]) -> None:
        for weight in weights:
            if weight.dim() > 1 and weight.grad is not None:
                # Its largest entry becomes 1: squares of tiny gradients would underflow to a norm of 0.
                direction = weight.grad / weight.grad.abs().amax().clamp_min(torch.finfo(weight.dtype).tiny)
                weight.add_(direction * (self.gamma * weight.norm() / direction.norm().clamp_min(1)))
