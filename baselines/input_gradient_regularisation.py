"""Input gradient regularisation: double backpropagation, a penalty on how fast the loss changes with the pixels.

Ross, Doshi-Velez, "Improving the Adversarial Robustness and Interpretability of Deep Neural Networks by Regularizing
their Input Gradients", AAAI 2018, arXiv 1711.09404, after Drucker and LeCun 1992:

    min_theta E cross-entropy(f(x), y) + weight * ||grad_x cross-entropy(f(x), y)||_2^2

To first order a perturbation of norm eps raises the loss by at most eps times the dual norm of that gradient, so that a
penalty eps * ||grad_x||_1 would stand for training on FGSM images (Simon-Gabriel et al., ICML 2019, arXiv 1802.01421).
The squared L2 norm knows neither norm nor radius of the threat, and is smooth where the gradient vanishes.

It trains on clean images alone: no attack that could collapse, and checkpoints are chosen by clean accuracy first.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from advbench.defense import Defense, TrainState
from advbench.losses import cross_entropy


class InputGradientRegularisation(Defense):
    """Input gradient regularisation (Ross and Doshi-Velez 2018).

    The history has `slope`, the mean squared L2 norm of the input gradient, in squared nats per squared pixel.
    """

    name = "input-gradient-regularisation"
    paper = "Ross, Doshi-Velez, AAAI 2018, arXiv 1711.09404"
    adversarial = False

    weight: float = Field(default=1.1, ge=0)
    """What multiplies the squared norm of one example's gradient: squared pixels per nat. The authors' code has lambda
    on half the squared norm of the gradient of a batch's mean loss, 256 examples a batch: lambda / (2 * 256) here. They
    searched it from 100 to 100,000 and chose 562 for notMNIST, 10,000 for SVHN, 56,234 for MNIST: 1.1, 19.5 and 110
    here, with Adam at 0.0002 for 15,000 steps. 0: standard training."""

    def passes(self) -> tuple[float, float]:
        # The second backward pass comes back through the first one.
        return 1, 2

    def weight_passes(self) -> tuple[float, float]:
        return self.passes()

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        # Fused kernels of attention have no second derivative.
        with state.exact(), sdpa_kernel(SDPBackend.MATH):
            logits = state.model(x)
            gradient = torch.autograd.grad(cross_entropy(logits, y).sum(), x, create_graph=True)[0]
        slope = gradient.square().flatten(1).sum(1).mean()
        state.report["slope"] = slope.detach()
        return state.cross_entropy(logits, y) + self.weight * slope
