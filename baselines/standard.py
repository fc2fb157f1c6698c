"""Standard training: no defense, the point that every other row is measured from."""

from __future__ import annotations

from torch import Tensor

from advbench.defense import Defense, TrainState


class Standard(Defense):
    """Cross-entropy on clean images."""

    name = "standard"
    paper = "the baseline of Madry et al., ICLR 2018, arXiv 1706.06083"
    adversarial = False

    def passes(self) -> tuple[float, float]:
        return 1, 1

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        return state.cross_entropy(state.model(x), y)
