"""A collector: it looks at a trained model and returns numbers, each with its unit and what it means."""

from __future__ import annotations

from torch import Tensor

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import Collector, Measures, Scene, typical


class MyCollector(Collector):
    """How steeply the loss rises from an image, in the norm of the threat."""

    name = "my-collector"
    about = "By how much the loss grows for each unit of the smallest perturbations."
    paper = "none yet"

    def collect(self, scene: Scene) -> Measures:
        # Not every model has an input gradient; one that has none gets a note with the reason instead of numbers.
        scene.needs_gradient()

        def work(rows: Tensor) -> dict[str, Tensor]:
            grad = input_gradient(scene.model, scene.x[rows], scene.y[rows])
            return {"slope": scene.threat.dual_norm(grad)}

        # Batch by batch, as the memory allows. The model is in eval mode, frozen, and given back as it was.
        slopes = scene.map(work)["slope"]
        # Values stand in the record, arrays in measures.safetensors beside it.
        values = typical("slope", slopes, "nats per unit of the norm", "rise of the loss along the steepest direction")
        return Measures(values, {"slope": slopes})
