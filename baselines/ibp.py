"""Interval bound propagation: train on the worst logits that intervals allow, not on an attack.

Gowal, Dvijotham, Stanforth, Bunel, Qin, Uesato, Arandjelovic, Mann, Kohli, "On the Effectiveness of Interval Bound
Propagation for Training Verifiably Robust Models", arXiv 1810.12715 (at ICCV 2019 as "Scalable Verified Training for
Provably Robust Image Classification"), section 3:

    min_theta E kappa * cross-entropy(z, y) + (1 - kappa) * cross-entropy(z_worst, y)

z are the clean logits. z_worst are upper bounds of every logit minus the label's over the box |d| <= eps cut with
[0, 1], and 0 for the label: what the walk of that box through the layers allows (`advbench.bounds`). Where
they are negative nothing in the box fools the network, so the second term bounds the worst cross-entropy from above.

    share = clip((progress - warmup) / ramp, 0, 1)
    kappa = 1 - share * (1 - kappa_end),   eps = share * radius * the threat's eps

An `eps_ramp` of the task multiplies this. For small networks made of the layers that `advbench.bounds` knows; others
are refused before the first step. There is no inner attack; it counts as adversarial because it meets the whole ball,
and by clean accuracy a checkpoint from before the ramp would stand for it.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from advbench.bounds import layers, worst_case
from advbench.defense import Defense, TrainState


class IBP(Defense):
    """Interval bound propagation (Gowal et al. 2018).

    The history has `verified`, the share of the batch that is read right in its whole box, at the step's own radius;
    `kappa`; and `radius`, that radius in pixels.
    """

    name = "ibp"
    paper = "Gowal et al., ICCV 2019, arXiv 1810.12715"
    norms = ("Linf",)

    kappa_end: float = Field(default=0.5, ge=0, le=1)
    """Weight of the clean cross-entropy when the ramp is over (the paper: 1/2). 1: standard training."""
    warmup: float = Field(default=1 / 30, ge=0, le=1)
    """Share of training on clean images alone (the authors' code: 2,000 of 60,000 steps)."""
    ramp: float = Field(default=1 / 6, ge=0, le=1)
    """Share of training in which kappa falls from 1 and the radius grows from 0, both in a straight line (the authors'
    code: 10,000 of 60,000 steps)."""
    radius: float = Field(default=1.1, gt=0)
    """Radius trained on as a share of eps (the authors' code: 0.33 for 0.3)."""

    @model_validator(mode="after")
    def _reaches_its_radius(self) -> Self:
        if self.warmup + self.ramp > 1:
            raise ValueError("warmup + ramp should be at most 1, or training ends before the radius is reached")
        return self

    def passes(self) -> tuple[float, float]:
        # The clean points, and centre and radius of their boxes.
        return 3, 3

    def weight_passes(self) -> tuple[float, float]:
        return self.passes()

    def prepare(self, state: TrainState) -> None:
        layers(state.model)

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        since = state.progress - self.warmup
        share = min(max(since / self.ramp, 0.0), 1.0) if self.ramp else float(since >= 0)
        kappa, eps = 1 - share * (1 - self.kappa_end), share * self.radius * state.threat.eps
        clean, worst = worst_case(state.model, x, y, (x - eps).clamp_min(0), (x + eps).clamp_max(1))
        verified = worst.scatter(1, y[:, None], -1).amax(1) < 0
        state.report |= {"verified": verified.float().mean(), "kappa": kappa, "radius": eps}
        return kappa * state.cross_entropy(clean, y) + (1 - kappa) * state.cross_entropy(worst, y)
