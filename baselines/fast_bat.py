"""Fast bi-level adversarial training: a one-step attack, and a gradient that knows how the attack will answer.

Zhang, Zhang, Khanduri, Hong, Chang, Liu, "Revisiting and Advancing Fast Adversarial Training Through The Lens of
Bi-Level Optimization", ICML 2022, arXiv 2112.12376. The attack is the lower level, linearised at a point z and made
strongly convex,

    d*(theta) = argmin_{d in C} <grad_z l_atk(theta, z), d - z> + (lambda / 2) ||d - z||^2,   l_atk = -(cross-entropy)

with C = {|d| <= eps, x + d in [0, 1]}. With step_size = 1/lambda its closed form is one projected step, without a sign:

    d*(theta) = P_C(z + step_size * g(theta)),   g(theta) = -grad_z l_atk(theta, z) = grad_z cross-entropy(theta, z)

P_C cuts each pixel at its bounds, so its Jacobian is the diagonal H of zeros and ones that is 1 where d* lies strictly
between them, and  dd*/dtheta = step_size * H dg/dtheta.  The upper level descends l_tr(theta, d*(theta)), in all

    grad_theta l_tr(theta, d*) + step_size * grad_theta <g(theta), H grad_d l_tr(theta, d*)>

the second factor of the product held fixed. In the paper's words this is
grad_theta l_tr - (1/lambda) grad_theta <grad_z l_atk, H grad_d l_tr>: the two minus signs meet. The second term, the
implicit gradient, is a vector-Jacobian product of g: no Hessian is formed. With a sign in the step it would be 0 and
this would be fast-at.

Linf only: in L2 the Jacobian of the projection mixes the pixels of an example, and H is no mask.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import get_total_norm

from advbench.attacks.pgd import input_gradient
from advbench.defense import Defense, TrainState, batch_norm
from advbench.losses import cross_entropy


class FastBAT(Defense):
    """Fast-BAT (Zhang et al. 2022).

    The history has `active`, the share of pixels that the projection leaves alone, and `implicit`, the norm of the
    implicit gradient over the norm of the plain one.
    """

    name = "fast-bat"
    paper = "Zhang et al., ICML 2022, arXiv 2112.12376"
    norms = ("Linf",)

    step_size: float | None = Field(default=None, gt=0)
    """1/lambda of the closed form: pixels a unit of gradient, which is nats of one example a pixel. Left out, it is as
    in the authors' code 5000/255 for eps up to 8/255, and 2000/255 above (a version of that code: 3000/255)."""
    ig_scale: float | None = Field(default=None, ge=0)
    """What multiplies the implicit gradient. Left out, it is the step size, the exact 1/lambda of the paper's update;
    the authors' code has 0.1 (lambda = 10) whatever the step size is. 0: none."""
    start_steps: int = Field(default=1, ge=0)
    """Closed-form steps that lead from a random point of ball and box to z (the authors' code: 1)."""
    attack_bn: Literal["train", "eval"] = "train"
    """Batch norm while crafting (the authors' code: train)."""

    def passes(self) -> tuple[float, float]:
        # One more backward pass: the implicit gradient comes back through the forward pass at z a second time.
        return self.start_steps + 2, self.start_steps + 3

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        """The value is the cross-entropy at d*, the gradient the sum of the plain and the implicit one."""
        model, eps = state.model, state.threat.eps
        step_size = self.step_size or (5000 if eps <= 8 / 255 else 2000) / 255
        low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
        with batch_norm(model, self.attack_bn):
            z = state.threat.random_start(x, state.noise)
            for _ in range(self.start_steps):
                z = (z + step_size * input_gradient(model, z, y)).clamp(low, high)
            z.requires_grad_()
            # In eval mode the pass at z must keep its statistics until it is differentiated again: the training pass
            # moves the model's own in place, which autograd does not notice.
            kept = {} if self.attack_bn == "train" else {n: b.clone() for n, b in model.named_buffers()}
            # Fused kernels of attention have no second derivative.
            with state.exact(), sdpa_kernel(SDPBackend.MATH):
                ascent = cross_entropy(functional_call(model, kept, z), y).sum()
                g = torch.autograd.grad(ascent, z, create_graph=True)[0]
        x_adv = (z + step_size * g).detach().clamp(low, high).requires_grad_()
        inside = (x_adv > low) & (x_adv < high)
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        loss = state.cross_entropy(model(x_adv), y)
        back, *plain = torch.autograd.grad(loss, [x_adv, *weights], allow_unused=True, materialize_grads=True)
        scale = step_size if self.ig_scale is None else self.ig_scale
        implicit = torch.autograd.grad(g, weights, back * inside * scale, allow_unused=True, materialize_grads=True)
        state.report["active"] = inside.float().mean()
        state.report["implicit"] = get_total_norm(implicit) / get_total_norm(plain).clamp_min(1e-30)
        return loss.detach() + sum(
            ((weight - weight.detach()) * (a + b)).sum() for weight, a, b in zip(weights, plain, implicit, strict=True)
        )
