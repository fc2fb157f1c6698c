"""How far examples are from being misread. Elsayed et al., NeurIPS 2018 (arXiv 1803.05598), equation 4."""

from __future__ import annotations

import torch
from torch import Tensor

from advbench.collectors.base import Collector, Measure, Measures, Scene, typical
from advbench.losses import margin


class Margins(Collector):
    """The margin, the label's logit minus the best other one, and the first-order distance to the decision boundary.

    The distance is the margin over its gradient's dual norm, in the threat's norm: exact for a linear model, negative
    for a misread example. Beside it eps, which it should be compared with. The arrays have both by example.
    """

    name = "margins"
    about = "How far each example is from being misread, in logits and, to first order, in pixels."
    paper = "Elsayed et al., NeurIPS 2018, arXiv 1803.05598"

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        values: dict[str, Measure] = {}
        arrays: dict[str, Tensor] = {}
        for where, images in scene.both.items():

            def work(rows: Tensor, images: Tensor = images) -> dict[str, Tensor]:
                x = images[rows].detach().requires_grad_()
                with torch.enable_grad():
                    margins = margin(scene.model(x), scene.y[rows])
                    slope = torch.autograd.grad(margins.sum(), x)[0]
                # Without a slope there is no boundary in sight.
                return {"margin": margins.detach(), "distance": margins.detach() / scene.threat.dual_norm(slope)}

            found = scene.map(work)
            arrays |= {f"{where}_{name}": array for name, array in found.items()}
            unit = f"pixels in {scene.threat.norm}"
            values |= typical(f"{where}_margin", found["margin"], "logits", f"{where} margin")
            values |= typical(f"{where}_distance", found["distance"], unit, f"{where} first-order distance, signed")
        return Measures(values, arrays, (f"{len(scene.x)} examples, eps {scene.threat.eps:g}",))
