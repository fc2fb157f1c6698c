"""How far from a maximum of its ball an attack is, step by step. Wang et al., ICML 2019 (arXiv 2112.08304)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import Collector, Measure, Measures, Scene, typical


class Fosc(Collector):
    """First-order stationarity c = max <z - x_adv, g> along an attack, with z in the ball, or in ball and pixel box.

    The paper's criterion has z in the ball. Pixels at the edge of the box hold it up, for they cannot go where the ball
    would let them; with z in the box too it falls to zero at a maximum. Neither falls at every step, because |g| grows
    on the way up: `relative` is the criterion over eps |g|, from 1 at the image to 0. The arrays have all three by
    step, from the start to the last point: (N, steps + 1).
    """

    name = "fosc"
    about = "How much the linearised loss could still gain in the ball where the attack stands: 0 is converged."
    paper = "Wang et al., ICML 2019, arXiv 2112.08304"

    steps: int = Field(default=20, ge=1)
    """Ascent steps (the paper's evaluation: 20)."""
    step_size: float = Field(default=0.25, gt=0)
    """Step size as a share of eps (the paper: 1/4)."""
    random_start: bool = False
    """Start at a random point of ball and box instead of the image (the paper: the image)."""

    def passes(self, classes: int) -> float:
        del classes
        return 2 * (self.steps + 1)

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        threat = scene.threat

        def work(rows: Tensor) -> dict[str, Tensor]:
            x, y, found = scene.x[rows], scene.y[rows], list[Tensor]()
            x_adv = threat.random_start(x, scene.noise(self.name, rows)) if self.random_start else x
            project = threat.projection(x)
            for step in range(self.steps + 1):
                slope = input_gradient(scene.model, x_adv, y)
                gap = threat.fosc(x_adv, x, slope)
                most = threat.eps * threat.dual_norm(slope)
                relative = torch.where(most > 0, gap / most, 0)
                found.append(torch.stack([gap, threat.fosc(x_adv, x, slope, box=True), relative], 1))
                if step < self.steps:
                    x_adv = project(threat.step(x_adv, slope, self.step_size * threat.eps))
            return {"fosc": torch.stack(found, 2)}

        paper, box, relative = scene.map(work)["fosc"].unbind(1)
        end = f"after {self.steps} steps"
        values: dict[str, Measure] = {
            **typical("fosc", paper[:, -1], "nats", f"what the linearised loss could still gain in the ball, {end}"),
            **typical("fosc_box", box[:, -1], "nats", f"what it could still gain in ball and pixel box, {end}"),
            **typical("fosc_relative", relative[:, -1], "1", f"the gain in the ball over eps times |gradient|, {end}"),
            **typical("fosc_start", paper[:, 0], "nats", "what it could gain in the ball where the attack starts"),
        }
        arrays = {"fosc": paper, "fosc_box": box, "fosc_relative": relative}
        start = "a random point" if self.random_start else "the clean image"
        return Measures(values, arrays, (f"{len(scene.x)} examples, {self.steps} steps from {start}",))
