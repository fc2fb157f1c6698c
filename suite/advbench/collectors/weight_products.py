"""Hessian-vector products of a loss in the weights, by eager double backward in the model's own number format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from advbench.collectors.base import Scene, refusal
from advbench.collectors.input_spectrum import piecewise_linear
from advbench.losses import cross_entropy
from advbench.memory import Size, fitting
from advbench.threat import per_example

Loss = Literal["clean", "fixed", "moving"]
MOVES = ("L2",)
"""Norms in which the steepest direction is a smooth function of the gradient. Elsewhere it is a sign or a single
pixel: constant in the weights almost everywhere, so that a moving attack has the Hessian of a fixed one."""
COST = 6
"""What an example's graph of second order takes, in forward passes."""


class WeightHessian:
    """The Hessian of the mean cross-entropy on all of a scene's examples, as a function (1, P) -> (1, P).

    `loss` says which: on the clean images; on the scene's adversarial examples, held `fixed` as the weights move, as
    most papers do; or `moving`, on the maximum that the attack follows. There the adversarial example is a function of
    the weights, x + eps g / |g| cut to the box, with g the gradient at the fixed example: the last step of a converged
    L2 attack, made again wherever the weights are. For a linear model that is the exact maximum, and the Hessian that
    of the adversarial loss (Yamada et al. 2021, arXiv 2102.02950). What the earlier steps would do is left out.

    Raises NotApplicable where the model cannot be differentiated twice.
    """

    def __init__(self, scene: Scene, loss: Loss) -> None:
        # Only to be refused: where a backward pass is a constant to autograd, products would be wrong and not say so.
        piecewise_linear(scene.model, scene.x[:1], torch.ones(scene.classes).to(scene.x))
        self.scene, self.loss = scene, loss
        self.images = scene.x if loss == "clean" else scene.adversarial
        self.parameters = scene.parameters()
        self.leaves = list(self.parameters.values())
        self.size = sum(leaf.numel() for leaf in self.leaves)
        self.products = 0
        """How many have been made."""
        most = 4 * len(scene.x)
        self._keeps = loss != "moving" and fitting(scene.model, scene.x, most) >= most
        self._kept: list[Sequence[Tensor]] = []
        self._chunks = Size(scene.batch if self._keeps else max(1, scene.batch // COST), scene.say)

    def __call__(self, vector: Tensor) -> Tensor:
        self.products += 1
        pieces = vector.flatten().split([leaf.numel() for leaf in self.leaves])
        along = [piece.view_as(leaf) for piece, leaf in zip(pieces, self.leaves, strict=True)]
        total = torch.zeros_like(vector).flatten()

        def add(slope: Sequence[Tensor], *, keep: bool) -> None:
            pairs = [(s, v) for s, v in zip(slope, along, strict=True) if s.requires_grad]
            slopes, ways = [s for s, _ in pairs], [v for _, v in pairs]
            found = torch.autograd.grad(slopes, self.leaves, ways, retain_graph=keep, materialize_grads=True)
            total.add_(torch.cat([part.flatten() for part in found]))

        try:
            if self._keeps:
                if not self._kept:
                    self._each(lambda rows: self._kept.append(self._slope(rows)))
                for slope in self._kept:
                    add(slope, keep=True)
            else:
                self._each(lambda rows: add(self._slope(rows), keep=False))
        except torch.OutOfMemoryError:
            if not self._keeps:
                raise
            # The graphs of all examples at once were too much: make each again for every product.
            self._keeps, self._kept = False, []
            self.products -= 1
            return self(vector)
        except RuntimeError as error:
            raise refusal(error, "cannot be differentiated twice") from None
        return total.view_as(vector)

    def _each(self, work: Callable[[Tensor], None]) -> None:
        self._chunks.each(torch.arange(len(self.scene.x), device=self.scene.x.device), work)

    def _slope(self, rows: Tensor) -> Sequence[Tensor]:
        """The gradient of these examples' share of the loss, with its graph."""
        with torch.enable_grad():
            loss = self.value(rows).sum() / len(self.scene.x)
            return torch.autograd.grad(loss, self.leaves, create_graph=True, materialize_grads=True)

    def value(self, rows: Tensor) -> Tensor:
        """The losses (B,) of the examples in `rows`, as a function of the leaves."""
        scene, x, y = self.scene, self.images[rows], self.scene.y[rows]
        if self.loss == "moving":
            x = x.requires_grad_()
            own = cross_entropy(scene.with_parameters(self.parameters, x), y).sum()
            slope = torch.autograd.grad(own, x, create_graph=True)[0]
            # At least this much, for where the gradient is zero it has no direction.
            tiny = torch.finfo(slope.dtype).tiny
            slope = slope / per_example(slope.detach().flatten(1).abs().amax(1).clamp_min(tiny), slope)
            length = slope.flatten(1).square().sum(1).clamp_min(tiny).sqrt()
            x = (scene.x[rows] + scene.threat.eps * slope / per_example(length, slope)).clamp(0, 1)
        return cross_entropy(scene.with_parameters(self.parameters, x), y)
