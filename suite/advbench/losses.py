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


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, of three classes or more: positive when the example is misclassified.

    (best other - label's) / (best - third best), whatever the scale of the logits is. Croce and Hein, ICML 2020
    (arXiv 2003.01690), equation 6.
    """
    best, _, third = logits.topk(3, dim=1).values.unbind(1)
    return -margin(logits, labels) / (best - third + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Difference of logits ratio to a target class each, of four classes or more; targets (N,) int64.

    (target's - label's) / (best - mean of third and fourth best). Croce and Hein, ICML 2020 (arXiv 2003.01690),
    equation 7.
    """
    best, _, third, fourth = logits.topk(4, dim=1).values.unbind(1)
    own, other = logits.gather(1, torch.stack([labels, targets], 1)).unbind(1)
    return (other - own) / (best - (third + fourth) / 2 + 1e-12)
