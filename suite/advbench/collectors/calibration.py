"""Whether a model knows how often it is right. Guo et al., ICML 2017 (arXiv 1706.04599), equation 3."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from advbench.collectors.base import Collector, Measure, Measures, NotApplicable, Scene, measure


class Calibration(Collector):
    """Expected calibration error: the mean distance between confidence and accuracy over equally wide bins.

    Clean and at the scene's adversarial examples, with the mean confidence and the accuracy beside it: where accuracy
    falls and confidence does not, the error is the model's overconfidence. The arrays have the bins: how many examples,
    their mean confidence and accuracy.
    """

    name = "calibration"
    about = "How far a model's confidence is from its accuracy, on clean and on attacked images."
    paper = "Guo et al., ICML 2017, arXiv 1706.04599"

    bins: int = Field(default=15, ge=1)
    """Equally wide bins of confidence (the paper: 15)."""

    def passes(self, classes: int) -> float:
        del classes
        return 2  # forward, at the clean and at the adversarial images

    def collect(self, scene: Scene) -> Measures:
        values: dict[str, Measure] = {}
        arrays: dict[str, Tensor] = {}
        notes = [f"{len(scene.x)} examples, {self.bins} bins"]
        images = {"clean": scene.x}
        try:
            images["adversarial"] = scene.adversarial
        except NotApplicable as reason:
            notes.append(f"adversarial: not applicable: {reason}")
        for where, x in images.items():
            confidence, guess = scene.logits(x).double().softmax(1).max(1)
            right = (guess == scene.y).double()
            count, mean, accuracy = binned(confidence, right, self.bins)
            error = (count * (mean - accuracy).abs()).sum() / len(x)
            values |= {
                f"{where}_ece": measure(error, "1", f"{where} expected calibration error"),
                f"{where}_confidence": measure(confidence.mean(), "1", f"{where} mean confidence"),
                f"{where}_accuracy": measure(right.mean(), "1", f"{where} accuracy on these examples"),
            }
            arrays |= {f"{where}_count": count, f"{where}_confidence": mean, f"{where}_accuracy": accuracy}
        return Measures(values, arrays, tuple(notes))


def binned(confidence: Tensor, right: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Examples, mean confidence and accuracy by bin, (bins,) each; bin i holds (i / bins, (i + 1) / bins].

    An empty bin has means of 0.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype, device=confidence.device)
    place = torch.bucketize(confidence, edges[1:-1])
    count, sums, hits = (
        torch.zeros(bins, dtype=confidence.dtype, device=confidence.device).index_add_(0, place, what)
        for what in (torch.ones_like(confidence), confidence, right)
    )
    return count, sums / count.clamp_min(1), hits / count.clamp_min(1)
