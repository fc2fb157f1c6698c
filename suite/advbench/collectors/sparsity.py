"""How much of a network is zero: its weights, and what its gates let through."""

from __future__ import annotations

import torch
from torch import Tensor

from advbench.collectors.base import Collector, Measure, Measures, NotApplicable, Scene, measure, typical
from advbench.collectors.gates import open_share


class Sparsity(Collector):
    """The share of weights that are exactly zero, and of ReLU gates that are shut, clean and adversarial."""

    name = "sparsity"
    about = "How many weights are exactly zero, and how many ReLU gates are shut."
    paper = "Guo et al., NeurIPS 2018, arXiv 1810.09619"

    def passes(self, classes: int) -> float:
        del classes
        return 2  # forward, at the clean and at the adversarial images

    def collect(self, scene: Scene) -> Measures:
        weights = [value for value in scene.model.parameters() if value.dim() > 1]
        total = sum(value.numel() for value in weights)
        zeros = sum(int((value == 0).sum()) for value in weights)
        notes = [f"{len(scene.x)} examples; weights without biases and batch norm"]
        values: dict[str, Measure] = {}
        if total:
            values["weights"] = measure(zeros / total, "1", "share of weights that are exactly zero")
        images, arrays = {"clean": scene.x}, dict[str, Tensor]()
        try:
            images["adversarial"] = scene.adversarial
        except NotApplicable as reason:
            notes.append(f"adversarial: not applicable: {reason}")
        for where, x in images.items():
            shut = 1 - scene.map(lambda rows, x=x: {"open": open_share(scene.model, x[rows])})["open"]
            if torch.isnan(shut).any():
                notes.append("not applicable: gates, for the network has none")
                break
            arrays[f"{where}_shut"] = shut
            values |= typical(f"{where}_shut", shut, "1", f"share of ReLU gates that are shut on {where} images")
        return Measures(values, arrays, tuple(notes))
