"""What counts as right and as fooled: by one pass or by a vote, and only where a detector lets the image through.

A model may have a method `reject(x) -> (N,)`: a score above zero says that it refuses to answer. A refused image is
neither right nor fooled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Judged:
    """What a model says of N images."""

    logits: Tensor
    """(N, classes), of the first pass."""
    right: Tensor
    """(N,) bool: the label's class, by finite logits, and not refused."""
    fooled: Tensor
    """(N,) bool: another class or logits that are not finite, and not refused."""
    refused: Tensor
    """(N,) bool."""


@torch.no_grad()
def judge(model: nn.Module, x: Tensor, labels: Tensor, votes: int = 1) -> Judged:
    """Ask `model` about the images x (N, ...) with labels (N,).

    With several `votes` as many passes are made, and each of the three holds where more than half of them say so: a
    model that draws random numbers must not lose an example to one unlucky draw, nor keep it by one lucky one.
    """
    reject: Any = getattr(model, "reject", None)
    reject = reject if callable(reject) else None
    counts = torch.zeros(3, len(x), device=x.device)
    first: Tensor | None = None
    for _ in range(votes):
        logits = model(x)
        first = logits if first is None else first
        well = (logits.argmax(1) == labels) & logits.isfinite().all(1)
        refused = torch.zeros_like(well) if reject is None else reject(x) > 0
        counts += torch.stack([well & ~refused, ~well & ~refused, refused])
    assert first is not None
    right, fooled, refused = (counts > votes / 2).unbind()
    return Judged(first, right, fooled, refused)
