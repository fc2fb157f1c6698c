"""The moving average of a model's weights: with robust training it is worth more than most methods.

Izmailov et al., UAI 2018 (arXiv 1803.05407) average along the end of training and estimate batch norm's statistics
anew for the average, as here; Gowal et al. 2020 (arXiv 2010.03593), section 4.3, and Rebuffi et al. 2021
(arXiv 2103.01946) take an exponential average of adversarial training's weights, decay 0.995 a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

LATEST = 10
"""Batches on which batch norm's statistics are estimated: the last ones that training itself met in an epoch."""


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` whose `update_parameters(model)`, called after every step, moves it towards the weights.

    The first weights that it meets are the average; step t after them, from 1 on, keeps
    min(decay, (1 + t) / (10 + t)) of the old one, so that the start is soon forgotten.
    """

    def move(mine: Any, theirs: Any, _: object) -> None:
        t = int(average.n_averaged)  # the argument is a copy on the device, which int() would wait for
        get_ema_multi_avg_fn(min(decay, (1 + t) / (10 + t)))(mine, theirs, average.n_averaged)

    average = AveragedModel(model, multi_avg_fn=move)
    return average


def estimate_batch_norm(network: nn.Module, batches: Sequence[Tensor]) -> int:
    """Set batch norm's running statistics to those of `network` itself on `batches`; how many examples went forward."""
    if not any(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules()):
        return 0
    update_bn(batches, network)
    return sum(len(batch) for batch in batches)
