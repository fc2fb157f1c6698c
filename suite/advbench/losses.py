"""Losses, example by example. Logits are (N, C), labels (N,) int64, results (N,)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as _cross_entropy


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0) -> Tensor:
    """-log softmax(logits)[label] in nats, not reduced; with `smoothing` all classes share that much of the target.

    Sum it for attacks: a batch mean would make the gradient of an example depend on its batch.
    """
    return _cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit minus the best other one: negative when the example is misclassified."""
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return own - others.amax(1)
