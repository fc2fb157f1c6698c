"""How unevenly examples pull at the weights. Cheng et al. 2022 (arXiv 2205.15130), section 5."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call, grad, vmap

from advbench.collectors.base import Collector, Measure, Measures, NotApplicable, Scene, measure, spearman, typical
from advbench.collectors.input_hessian import InputHessian
from advbench.losses import cross_entropy

TENTH = 0.1
ROOM = 2**26
"""Numbers that per-example gradients may take at once."""


class Influence(Collector):
    """The length of each example's gradient in the weights, of its clean and of its adversarial cross-entropy.

    The share of all squared lengths that the top tenth of the examples holds: 0.1 if all pull alike, 1 if a few pull
    alone. And whether the examples that the attack makes louder (|g_adv| / |g_clean|) are those whose loss bends most
    in the pixels, or those that the model is least sure of.
    """

    name = "influence"
    about = "How unevenly examples pull at the weights, and which ones the attack makes louder."
    paper = "Cheng et al. 2022, arXiv 2205.15130"

    examples: int | None = Field(default=256, ge=1)

    def passes(self, classes: int) -> float:
        # An example's own gradient in all weights takes as long as about fifteen passes in a batch.
        return 2 * 15 + 1 + InputHessian().spectrum(classes)

    def collect(self, scene: Scene) -> Measures:
        scene.needs_gradient()
        values: dict[str, Measure] = {}
        arrays: dict[str, Tensor] = {}
        notes, how = [f"{len(scene.x)} examples, each on its own loss"], ""
        for where, images in scene.both.items():
            lengths, how = gradient_lengths(scene, images)
            arrays[f"{where}_length"] = lengths
            values |= typical(f"{where}_length", lengths, "nats per weight unit", f"gradient of the {where} loss")
            values[f"{where}_top_tenth"] = measure(
                top_share(lengths), "1", f"share of the squared {where} gradients that the top 10 % of examples hold"
            )
        notes.append(how)
        louder = arrays["adversarial_length"] / arrays["clean_length"]
        arrays["louder"] = louder
        values |= typical("louder", louder, "1", "length of the adversarial gradient over the clean one's")
        confidence = scene.logits(scene.x).softmax(1).amax(1)
        values["louder_with_confidence"] = measure(
            spearman(louder, confidence), "1", "Spearman correlation of that ratio with the clean confidence"
        )
        try:
            largest = InputHessian().largest(scene)
        except NotApplicable as reason:
            notes.append(f"no correlation with the input curvature: {reason}")
        else:
            values["louder_with_curvature"] = measure(
                spearman(louder, largest), "1", "Spearman correlation of that ratio with the clean input curvature"
            )
        return Measures(values, arrays, tuple(notes))


def top_share(lengths: Tensor) -> Tensor:
    """Of the sum of squares, what the largest tenth of lengths (N,) holds; at least one counts. NaN if all are zero."""
    squares = (lengths.double() / lengths.max()).square().sort(descending=True).values
    return squares[: max(1, round(TENTH * len(squares)))].sum() / squares.sum()


def gradient_lengths(scene: Scene, images: Tensor) -> tuple[Tensor, str]:
    """|gradient of each example's own cross-entropy in all weights|, (N,), and how it was found."""
    parameters = {name: value.detach() for name, value in scene.parameters().items()}
    size = sum(value.numel() for value in parameters.values())
    at_once = max(1, ROOM // max(1, size))

    def loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(scene.model, weights, (x[None],)), y[None]).sum()

    def length(found: dict[str, Tensor], first: int) -> Tensor:
        return torch.stack([part.flatten(first).norm(dim=-1) for part in found.values()], -1).norm(dim=-1)

    def together(rows: Tensor) -> dict[str, Tensor]:
        found = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, images[rows], scene.y[rows])
        return {"length": length(found, 1)}

    def one_by_one(rows: Tensor) -> dict[str, Tensor]:
        leaves, each = scene.parameters(), list[Tensor]()
        for row in rows.split(1):
            with torch.enable_grad():
                own = cross_entropy(scene.with_parameters(leaves, images[row]), scene.y[row]).sum()
            found = torch.autograd.grad(own, list(leaves.values()), materialize_grads=True)
            each.append(length(dict(zip(leaves, found, strict=True)), 0))
        return {"length": torch.stack(each)}

    def run(work: Callable[[Tensor], dict[str, Tensor]]) -> Tensor:
        return scene.map(work, max(1.0, scene.batch / at_once))["length"]

    try:
        return run(together), "gradients of many examples at once, by torch.func.vmap"
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation that vmap has no rule for
        return run(one_by_one), "gradients one by one: torch.func.vmap has no rule for something in this model"
