"""What an evaluation can be made of: labelled images in [0, 1], and a model that answers with logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from advbench.data.base import Examples
from advbench.spec import BadInput


def labelled(test: Examples, classes: int) -> None:
    """Raises BadInput for a test set that is empty or has labels of no class."""
    if not len(test):
        raise BadInput("no test example to attack; give the task more of them: data.test")
    low, high = int(test.labels.min()), int(test.labels.max())
    if low < 0 or high >= classes:
        worst = low if low < 0 else high
        raise BadInput(f"the test set has a label of {worst}; with {classes} classes labels go from 0 to {classes - 1}")


def pixels(x: Tensor) -> None:
    """Raises BadInput for images x (N, C, H, W) outside [0, 1]: no candidate would lie in their ball and in the box."""
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise BadInput(
            f"the test images have pixels from {low:g} to {high:g}; they should lie in [0, 1], and normalisation "
            "inside the model"
        )


@torch.no_grad()
def logits(model: nn.Module, x: Tensor, classes: int) -> None:
    """Raises BadInput unless `model` answers the images x (N, C, H, W) with float32 logits (N, classes)."""
    said: Any = model(x)
    if not isinstance(said, Tensor):
        raise BadInput(
            f"the model answers with a {type(said).__name__}; it should answer with a tensor of logits (N, {classes}): "
            "wrap it in a module that returns them"
        )
    if said.shape != (len(x), classes):
        raise BadInput(
            f"the model answers {len(x)} images with {tuple(said.shape)}; it should be ({len(x)}, {classes}), the "
            "logits of every class"
        )
    if said.dtype != torch.float32:
        kind = str(said.dtype).removeprefix("torch.")
        raise BadInput(f"the model answers in {kind}; verdicts are float32: cast it and its weights with .float()")
    reject: Any = getattr(model, "reject", None)
    if callable(reject):
        score: Any = reject(x)
        if not isinstance(score, Tensor) or score.shape != (len(x),):
            got = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise BadInput(
                f"the model's reject answers {len(x)} images with {got}; it should be a score each, ({len(x)},)"
            )
