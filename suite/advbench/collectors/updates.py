"""Whether training goes on or turns back: angles between successive steps. Cheng et al. 2022 (arXiv 2205.15130)."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from advbench.collectors.base import Collector, Measure, Measures, NotApplicable, Scene, measure

MEANING = {
    "gradient": "the gradients of two steps in a row",
    "update": "how two steps in a row moved the weights",
}


class Updates(Collector):
    """Cosines between successive gradients, and between successive moves of the weights, over the steps of an epoch.

    On a quadratic, gradient descent goes straight along a direction of curvature below 1 / lr (cosine 1), and from one
    wall of the valley to the other above it (cosine -1); gradients of different batches are near 0 where noise is most
    of them. Momentum carries a share of each move into the next, so it is the gradients that show the turns. They are
    those that the optimizer meets: averaged over processes, clipped, without weight decay. Pairs lie in one epoch, so
    that its numbers do not depend on `every`.
    """

    name = "updates"
    about = "Whether successive steps of a training go on or turn back; it is measured along a training only."
    paper = "Cheng et al. 2022, arXiv 2205.15130"
    along_only = True

    every: int | None = Field(default=1, ge=1)

    @field_validator("examples")
    @classmethod
    def _of_steps(cls, examples: int | None) -> int | None:
        if examples is not None:
            raise ValueError("looks at the steps of the training and at no examples of its own; leave it out")
        return examples

    def passes(self, classes: int) -> float:
        del classes
        return 0  # the training's own

    def collect(self, scene: Scene) -> Measures:
        del scene
        raise NotApplicable("it watches the steps of a training; a task's [collect] may ask for it")


class Turns:
    """Sums over pairs of successive steps of an optimizer, kept on its device: no step waits for them."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.sums: dict[str, Tensor] = {}
        """By kind: the sum of the cosines, how many are below 0, how many pairs, (3,)."""
        self.last: dict[str, Tensor] = {}
        """By kind: the last step's vector over all weights."""
        self._spare: dict[str, Tensor] = {}
        """Vectors that may be written over: new memory for each step would cost as much as the sums."""
        optimizer.register_step_pre_hook(self._begin)
        optimizer.register_step_post_hook(self._end)

    def keep(self) -> dict[str, Tensor]:
        """All that `restore` needs."""
        kept = {"sums": self.sums, "last": self.last}
        return {f"{part}/{kind}": value.clone() for part, table in kept.items() for kind, value in table.items()}

    def restore(self, kept: dict[str, Tensor], device: torch.device) -> None:
        """Go on from what `keep` has said; from nothing, at the start of an epoch."""
        tables: dict[str, dict[str, Tensor]] = {"sums": {}, "last": {}}
        for name, value in kept.items():
            part, _, kind = name.partition("/")
            tables[part][kind] = value.to(device)
        self.sums, self.last = tables["sums"], tables["last"]

    def read(self) -> Measures:
        """Means over the epoch so far; None where it had no two steps that went anywhere. Waits for the device."""
        values: dict[str, Measure] = {}
        for kind, meaning in MEANING.items():
            total, back, pairs = self.sums.get(kind, torch.zeros(3)).tolist()
            mean = total / pairs if pairs else float("nan")
            share = back / pairs if pairs else float("nan")
            values[f"{kind}_cosine"] = measure(mean, "1", f"cosine between {meaning}, mean of the epoch's pairs")
            values[f"{kind}_reversals"] = measure(share, "1", f"share of the epoch's pairs below 0, of {meaning}")
        return Measures(values, notes=("successive steps of the optimizer in one epoch, in all weights at once",))

    def _begin(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        weights = _weights(optimizer)
        self._spare["before"] = self._flat("before", weights, weights)
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        self._pair("gradient", self._flat("gradient", gradients, weights))

    def _end(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # What a defense does to the weights between the steps, and takes back, is no move of the optimizer.
        weights = _weights(optimizer)
        self._pair("update", self._flat("update", weights, weights).sub_(self._spare["before"]))

    def _flat(self, kind: str, tensors: list[Tensor], weights: list[Tensor]) -> Tensor:
        """All entries in one vector (D,), in the order in which the `weights` lie in memory: others take longer."""
        orders = [sorted(range(weight.dim()), key=weight.stride, reverse=True) for weight in weights]
        parts = [t.detach().permute(order).reshape(-1) for t, order in zip(tensors, orders, strict=True)]
        return torch.cat(parts, out=self._spare.pop(kind, None))

    def _pair(self, kind: str, vector: Tensor) -> None:
        last = self.last.get(kind)
        self.last[kind] = vector
        if last is None:
            self.sums[kind] = vector.new_zeros(3)
            return
        # One norm after the other: their product, squared, would underflow.
        cosine = torch.dot(vector, last) / torch.linalg.vector_norm(vector) / torch.linalg.vector_norm(last)
        there = cosine.isfinite()
        self.sums[kind] += torch.stack([torch.where(there, cosine, 0), (cosine < 0).to(cosine), there.to(cosine)])
        self._spare[kind] = last


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
