"""How linear the loss is in the ball: what single-step attacks and first-order bounds live on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import Collector, Measure, Measures, Scene, typical
from advbench.losses import cross_entropy


class Linearity(Collector):
    """Local linearity error, gradient alignment, and a local Lipschitz estimate, example by example.

    `error`: |loss(x_adv) - loss(x) - <x_adv - x, g>| at the scene's adversarial example, with g the gradient at x; a
    lower bound of the largest one in the ball (Qin et al., NeurIPS 2019, arXiv 1907.02610, equation 5). `alignment`:
    cosine of g and the gradient at a random point of the ball (Andriushchenko and Flammarion, NeurIPS 2020, arXiv
    2007.02617, equation 5); it falls to 0 in catastrophic overfitting. `lipschitz`: |f(x_adv) - f(x)|_1 / |x_adv - x|
    of the logits f, in the threat's norm (Yang et al., NeurIPS 2020, arXiv 2003.02460, equation 3).
    """

    name = "linearity"
    about = "How far the loss is from linear within the threat's ball."
    paper = "Qin et al., NeurIPS 2019, arXiv 1907.02610; Andriushchenko and Flammarion, NeurIPS 2020, arXiv 2007.02617"

    def passes(self, classes: int) -> float:
        del classes
        return 6

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        threat = scene.threat

        def work(rows: Tensor) -> dict[str, Tensor]:
            x, y, x_adv = scene.x[rows], scene.y[rows], scene.adversarial[rows]
            slope, delta = input_gradient(scene.model, x, y), x_adv - x
            near = threat.random_start(x, scene.noise(self.name, rows))
            other = input_gradient(scene.model, near, y)
            with torch.no_grad():
                logits, logits_adv = scene.model(x), scene.model(x_adv)
            rise = cross_entropy(logits_adv, y) - cross_entropy(logits, y)
            change = (logits_adv - logits).abs().sum(1)
            return {
                "error": (rise - (delta * slope).flatten(1).sum(1)).abs(),
                "alignment": cosine(slope, other),
                "lipschitz": torch.where(change > 0, change / threat.size(delta), 0),
            }

        found = scene.map(work)
        size = f"logits per pixel in {threat.norm}"
        values: dict[str, Measure] = {
            **typical("error", found["error"], "nats", "distance of the loss at the adversarial example from linear"),
            **typical("alignment", found["alignment"], "1", "cosine of input gradients, image and random point"),
            **typical("lipschitz", found["lipschitz"], size, "change of the logits over the perturbation's size"),
        }
        return Measures(values, found, (f"{len(scene.x)} examples, eps {threat.eps:g}",))


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosines (N,) of (N, ...); gradients of a saturated model are scaled first, for their squares would underflow."""
    tiny = torch.finfo(a.dtype).tiny
    flat = [value.flatten(1) for value in (a, b)]
    return cosine_similarity(*(value / value.abs().amax(1, keepdim=True).clamp_min(tiny) for value in flat), dim=1)
