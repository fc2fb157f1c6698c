"""How smoothly the gradient of adversarial training changes as the weights move.

Kanai et al. 2021 (arXiv 2103.01400): the best attack depends on the weights, and the ball's constraint makes the
adversarial loss less smooth than the clean one, most of all in Linf.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector, Measure, Measures, Scene, measure
from advbench.collectors.landscape import Weights, attacked, dot, filter_normalized, moved, normal, slope
from advbench.seeds import generator
from advbench.threat import Norm, Threat


class Smoothness(Collector):
    """R(h) = |grad(w + h d) - grad(w - h d)| / (2 h |d|) of the mean loss along a random direction d in the weights.

    The attack is made anew at both ends, in the threat's own norm and, in a ball of as large a Euclidean norm, in the
    other one of Linf and L2. The direction is filter-normalised, so that h is a share of the weights' own length. A
    smooth gradient has an R that does not depend on h; one that jumps has an R that grows like 1 / h, and `slope` is
    then -1: the fitted slope of log R over log h. The arrays have R by norm and h.
    """

    name = "smoothness"
    about = "How fast the gradient of the clean and the adversarial loss changes as the weights move."
    paper = "Kanai et al. 2021, arXiv 2103.01400"

    examples: int | None = Field(default=128, ge=1)
    sizes: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(3e-2, 1e-2, 3e-3, 1e-3), min_length=2)
    """h, as shares of the weights' own length."""
    steps: int = Field(default=10, ge=1)
    """PGD steps, from the image."""

    def passes(self, classes: int) -> float:
        del classes
        # Slopes at both ends, clean and under two attacks that are made anew there.
        return 2 * len(self.sizes) * (2 + 2 * (2 * self.steps + 2))

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        weights = {name: value.detach() for name, value in scene.parameters().items()}
        source = generator(scene.x.device, scene.seed, self.name)
        way = filter_normalized(normal(weights, source), weights)
        values: dict[str, Measure] = {}
        at = torch.tensor(self.sizes, dtype=torch.float64)
        arrays = {"sizes": at}
        for ball in (None, *norms(scene.threat, scene.x[0].numel())):
            rates = torch.tensor([self._rate(scene, weights, way, size, ball) for size in self.sizes])
            name = f"adversarial_{ball.norm}" if ball else "clean"
            said = f"{ball.norm} {ball.eps:.3g} adversarial" if ball else "clean"
            arrays[f"{name}_rate"] = rates
            values[f"{name}_rate"] = measure(
                rates[-1], "nats per squared weight unit", f"change of the {said} gradient at h = {self.sizes[-1]:g}"
            )
            values[f"{name}_slope"] = measure(
                log_slope(at, rates), "1", f"log-log slope of that over h: 0 is smooth, -1 jumps ({said})"
            )
        return Measures(values, arrays, (f"{len(scene.x)} examples, PGD-{self.steps} made anew at both ends",))

    def _rate(self, scene: Scene, weights: Weights, way: Weights, size: float, ball: Threat | None) -> float:
        slopes: list[Weights] = []
        for sign in (1, -1):
            there, images = moved(weights, (sign * size, way)), scene.x
            if ball:
                images = attacked(scene, there, PGD(steps=self.steps, random_start=False), ball)
            slopes.append(slope(scene, there, images))
        change = {name: slopes[0][name] - slopes[1][name] for name in weights}
        return (dot(change, change) / dot(way, way)) ** 0.5 / (2 * size)


def norms(threat: Threat, pixels: int) -> tuple[Threat, ...]:
    """The threat, and the other of Linf and L2 whose ball reaches as far in the Euclidean norm."""
    wide = pixels**0.5
    other: dict[Norm, Threat] = {"Linf": Threat("L2", threat.eps * wide), "L2": Threat("Linf", threat.eps / wide)}
    return (threat, other[threat.norm]) if threat.norm in other else (threat,)


def log_slope(x: torch.Tensor, y: torch.Tensor) -> float:
    """The least-squares slope of log y over log x; NaN where some y is 0."""
    a, b = x.double().log(), y.double().log()
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / (a @ a))
