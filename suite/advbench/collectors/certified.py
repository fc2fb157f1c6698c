"""What is proven of a model: examples that no perturbation can change, whatever attack is tried."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from advbench import bounds, crown
from advbench.collectors.base import Collector, Measure, Measures, NotApplicable, Scene, measure
from advbench.losses import margin
from advbench.spec import BadInput

ROUNDING = 2**-25
"""By which each pixel of an L1 perturbation may pass its radius in the ledger's eyes (`Threat.contains`)."""


class Certified(Collector):
    """The share of examples that are proven robust: read right at every point of ball and box.

    By interval bounds (Gowal et al.) of every example, and by CROWN (Zhang et al.) of those that intervals leave open
    and the scene's attack does not break; whoever is proven by either is certified. A lower bound of the truth, beside
    `attacked`, the upper one of the same examples. In L2 and L1 intervals bound the box around the ball, a large one.

    The ball is as large as the one in which the ledger accepts a candidate, eps and its tolerance. Bounds are of the
    network in real numbers, found in float64 and not rounded outwards; the arrays have by example the lowest margin
    that intervals prove, in logits, and what it is where CROWN was asked too.
    """

    name = "certified"
    about = "How many examples are proven to withstand every perturbation: a lower bound of robust accuracy."
    paper = "Gowal et al., ICCV 2019, arXiv 1810.12715; Zhang et al., NeurIPS 2018, arXiv 1811.00866"

    examples: int | None = Field(default=256, ge=1)
    """The first so many of the examples."""
    crown: bool = True
    """Ask CROWN too, where intervals prove nothing: a fraction of a second an example of a small network."""

    def passes(self, classes: int) -> float:
        # In float64, which costs about twice as much. CROWN goes back through the network one example after another: on
        # digits-cnn some 200 passes for each class, of those that intervals leave open.
        return 8 + (200 * classes if self.crown else 0)

    def collect(self, scene: Scene) -> Measures:
        try:
            bounds.layers(scene.model)
        except BadInput as reason:
            raise NotApplicable(str(reason)) from None
        model, threat = copy.deepcopy(scene.model).double().eval(), scene.threat
        pixels = scene.x[0].numel() if threat.norm == "L1" else 0
        ball = replace(threat, eps=threat.eps + threat.tolerance + ROUNDING * pixels)
        standing, notes = _standing(scene)

        def work(rows: Tensor) -> dict[str, Tensor]:
            x, y = scene.x[rows].double(), scene.y[rows]
            low, high = (x - ball.eps).clamp(0, 1), (x + ball.eps).clamp(0, 1)
            # The label's own bound is 0, so this is the least that it leads by.
            return {"margin": margin(bounds.worst_case(model, x, y, low, high)[1], y)}

        with torch.no_grad():
            intervals = scene.map(work, cost=6)["margin"]
        proven, asked, methods = intervals.clone(), 0, "interval bounds"
        if self.crown:
            left: list[int] = (standing & (intervals <= 0)).nonzero().squeeze(1).tolist()
            try:
                for row in (slice(at, at + 1) for at in left):
                    x, y = scene.x[row].double(), scene.y[row]
                    proven[row] = proven[row].maximum(margin(crown.worst_case(model, x, y, ball), y))
                asked, methods = len(left), "interval bounds or CROWN"
            except BadInput as reason:
                notes.append(f"interval bounds alone: {reason}")
        robust = "share of examples proven to be read right in the whole ball"
        values: dict[str, Measure] = {
            "certified": measure((proven > 0).double().mean(), "1", f"{robust}, by {methods}"),
            "certified_interval": measure((intervals > 0).double().mean(), "1", f"{robust}, by interval bounds"),
            "attacked": measure(standing.double().mean(), "1", "share of these examples that the attack leaves right"),
        }
        notes.insert(0, f"{len(scene.x)} examples, eps {threat.eps:g}, float64; CROWN was asked of {asked}")
        return Measures(values, {"interval_margin": intervals, "margin": proven}, tuple(notes))


def _standing(scene: Scene) -> tuple[Tensor, list[str]]:
    """Who is right, under the scene's attack too where there is one (N,), and a remark where there is none."""
    right = scene.logits(scene.x).argmax(1) == scene.y
    try:
        return right & (scene.logits(scene.adversarial).argmax(1) == scene.y), []
    except NotApplicable as reason:
        return right, [f"attacked: no attack: {reason}"]
