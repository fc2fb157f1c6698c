"""How the loss rises around the weights: curves, surfaces, worst and average cases.

The adversarial loss comes first: the clean one may get flatter as adversarial training sharpens the other (Yamada et
al. 2021, arXiv 2102.02950).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector, Measure, Measures, Scene, measure
from advbench.collectors.landscape import (
    Weights,
    attacked,
    dot,
    filter_normalized,
    mean_loss,
    moved,
    normal,
    slope,
)
from advbench.seeds import generator

Adversaries = Literal["regenerated", "frozen"]
Radius = Annotated[float, Field(gt=0)]


class Sharpness(Collector):
    """The rise of the mean adversarial and clean loss around the weights.

    `curve` and `surface`: along one and two random filter-normalised directions (Li et al. 2018), at `at` times the
    weights' own length. Worst case: one ascent step of length rho in the weights, plain (SAM, arXiv 2010.01412), in
    units of each weight (ASAM, arXiv 2102.11600), or of length gamma times its own in every tensor (AWP, arXiv
    2004.05884). Average case: random directions of length rho, each taken both ways, which leaves the gradient out.
    Adversarial examples are those of the unmoved weights in all cases and in the surface; along the curve they are made
    anew at every point, if `curve` says so.
    """

    name = "sharpness"
    about = "How much the mean adversarial and clean loss rise when the weights move a little."
    paper = "Li et al., NeurIPS 2018, arXiv 1712.09913; Foret et al., ICLR 2021, arXiv 2010.01412"

    examples: int | None = Field(default=256, ge=1)
    curve: Adversaries = "regenerated"
    """Adversarial examples along the curve: made anew at each point (as AWP's figures), or those of the start."""
    steps: int = Field(default=10, ge=1)
    """PGD steps of eps/4 where they are made anew."""
    reach: float = Field(default=1.0, gt=0)
    """Curve and surface go from -reach to reach (the paper: 1)."""
    points: int = Field(default=11, ge=3)
    """Of the curve."""
    side: int = Field(default=7, ge=0)
    """Points of the surface each way; 0: no surface."""
    sam: tuple[Radius, ...] = (0.05, 0.1)
    """Radii rho, in weight units (SAM: 0.05)."""
    asam: tuple[Radius, ...] = (0.5, 1.0)
    """Radii rho as shares of each weight (ASAM: 0.5)."""
    awp: tuple[Radius, ...] = (0.005, 0.01)
    """Shares gamma of the length of each tensor (AWP: 0.005 to 0.01)."""
    average: tuple[Radius, ...] = (0.05, 0.1)
    """Lengths of random directions, in weight units."""
    directions: int = Field(default=4, ge=1)
    """Random directions, each taken both ways."""

    def passes(self, classes: int) -> float:
        del classes
        cases = 3 + len(self.sam) + len(self.asam) + len(self.awp) + 2 * len(self.average) * self.directions
        anew = 2 * self.steps * self.points if self.curve == "regenerated" else 0
        return 2 * (cases + self.points + self.side**2) + anew

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        weights = {name: value.detach() for name, value in scene.parameters().items()}
        values: dict[str, Measure] = {}
        arrays: dict[str, Tensor] = {}
        for loss, images in (("adversarial", scene.adversarial), ("clean", scene.x)):
            values |= self._cases(scene, weights, loss, images)
            self._surface(scene, weights, loss, images, arrays)
            self._curve(scene, weights, loss, images, arrays)
            values[f"{loss}_curve_rise"] = measure(
                arrays[f"{loss}_curve"][[0, -1]].mean() - arrays[f"{loss}_curve"][self.points // 2],
                "nats",
                f"rise of the {loss} loss at the two ends of the curve, filter-normalised {self.reach:g}, mean",
            )
        notes = (
            f"{len(scene.x)} examples",
            f"curve: adversarial examples {self.curve}" + f", PGD-{self.steps}" * (self.curve == "regenerated"),
            "surface, worst and average cases: adversarial examples frozen at the unmoved weights",
        )
        return Measures(values, arrays, notes)

    def _direction(self, scene: Scene, weights: Weights, number: int) -> dict[str, Tensor]:
        """The same for the clean and the adversarial loss."""
        source = generator(scene.x.device, scene.seed, self.name, number)
        return filter_normalized(normal(weights, source), weights)

    def _curve(self, scene: Scene, weights: Weights, loss: str, images: Tensor, arrays: dict[str, Tensor]) -> None:
        direction = self._direction(scene, weights, 0)
        # An odd number of points would do without, but the middle is the unmoved model whatever the number.
        at = torch.linspace(-self.reach, self.reach, self.points, dtype=torch.float64)
        at[self.points // 2] = 0
        anew = loss == "adversarial" and self.curve == "regenerated"
        attack, found = PGD(steps=self.steps), list[float]()
        for size in at.tolist():
            there = moved(weights, (size, direction))
            found.append(mean_loss(scene, there, attacked(scene, there, attack) if anew else images))
        arrays |= {"curve_at": at, f"{loss}_curve": torch.tensor(found, dtype=torch.float64)}

    def _surface(self, scene: Scene, weights: Weights, loss: str, images: Tensor, arrays: dict[str, Tensor]) -> None:
        if not self.side:
            return
        first, second = (self._direction(scene, weights, number) for number in (0, 1))
        at = torch.linspace(-self.reach, self.reach, self.side, dtype=torch.float64)
        rows = [
            [mean_loss(scene, moved(weights, (a, first), (b, second)), images) for b in at.tolist()]
            for a in at.tolist()
        ]
        arrays |= {"surface_at": at, f"{loss}_surface": torch.tensor(rows, dtype=torch.float64)}

    def _cases(self, scene: Scene, weights: Weights, loss: str, images: Tensor) -> dict[str, Measure]:
        base = mean_loss(scene, weights, images)
        uphill = slope(scene, weights, images)
        ways: dict[str, tuple[tuple[float, ...], Callable[[Weights, Weights], dict[str, Tensor]], str]] = {
            "sam": (self.sam, sam, "one ascent step of length"),
            "asam": (self.asam, asam, "one ascent step in units of each weight, of length"),
            "awp": (self.awp, awp, "one ascent step in every tensor, as a share of its length,"),
        }
        values = {f"{loss}_loss": measure(base, "nats", f"mean {loss} loss on these examples")}
        for name, (radii, way, said) in ways.items():
            step = way(uphill, weights)
            for radius in radii:
                rise = mean_loss(scene, moved(weights, (radius, step)), images) - base
                values[f"{loss}_{name}_{radius:g}"] = measure(
                    rise, "nats", f"rise of the {loss} loss after {said} {radius:g}"
                )
        for radius in self.average:
            rises: list[float] = []
            for number in range(self.directions):
                step = normal(weights, generator(scene.x.device, scene.seed, self.name, "average", number))
                size = radius / dot(step, step) ** 0.5
                rises += [mean_loss(scene, moved(weights, (sign * size, step)), images) - base for sign in (1, -1)]
            values[f"{loss}_average_{radius:g}"] = measure(
                sum(rises) / len(rises),
                "nats",
                f"mean rise of the {loss} loss in random directions of length {radius:g}",
            )
        return values


def sam(uphill: Weights, weights: Weights) -> dict[str, Tensor]:
    """The unit ascent direction g / |g|. Foret et al., ICLR 2021 (arXiv 2010.01412), equation 2."""
    del weights
    return _over(uphill, dot(uphill, uphill) ** 0.5)


def asam(uphill: Weights, weights: Weights) -> dict[str, Tensor]:
    """T^2 g / |T g| with T = |w|. Kwon et al., ICML 2021 (arXiv 2102.11600), equation 10."""
    scaled = {name: weights[name].abs() * grad for name, grad in uphill.items()}
    length = dot(scaled, scaled) ** 0.5
    return _over({name: weights[name].abs() * grad for name, grad in scaled.items()}, length)


def awp(uphill: Weights, weights: Weights) -> dict[str, Tensor]:
    """|w_l| g_l / |g_l| in every tensor l that has filters. Wu et al., NeurIPS 2020 (arXiv 2004.05884), equation 9.

    As in the authors' code, biases and batch norm stay where they are.
    """
    return {
        name: _over({name: grad}, float(grad.norm()))[name] * weights[name].norm()
        if grad.dim() > 1
        else torch.zeros_like(grad)
        for name, grad in uphill.items()
    }


def _over(direction: Weights, length: float) -> dict[str, Tensor]:
    """direction / length, or nothing where there is no direction."""
    return {name: value / length if length else torch.zeros_like(value) for name, value in direction.items()}
