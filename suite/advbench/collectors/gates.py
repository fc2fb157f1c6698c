"""Which side of their kinks the units of a network are on, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
KINKED = {
    *(_aten.relu, _aten.relu_, _aten.leaky_relu, _aten.leaky_relu_, _aten.prelu, _aten._prelu_kernel),
    *(_aten.hardtanh, _aten.hardtanh_, _aten.threshold, _aten.threshold_),
}
"""What a pass does at a kink at zero, below the level at which it matters whether a module or a function was called."""
CLAMPS = {_aten.clamp, _aten.clamp_, _aten.clamp_min, _aten.clamp_min_}
"""A ReLU where the lower bound is zero and the only one: others keep a length from zero, or a pixel in its box."""


def _from_zero(min: object = None, max: object = None) -> bool:  # noqa: A002  # as aten calls its bounds
    """Whether a clamp with these bounds leaves what is above zero, and nothing else, as it is."""
    return isinstance(min, int | float) and min == 0 and max is None


class _Watch(TorchDispatchMode):
    """Shows `look` what each kinked unit is given, before an in-place one overwrites it."""

    def __init__(self, look: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.look = look

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        clamp = func.overloadpacket in CLAMPS and _from_zero(*args[1:], **(kwargs or {}))
        if func.overloadpacket in KINKED or clamp:
            self.look(args[0])
        return func(*args, **(kwargs or {}))


def agreement(model: nn.Module, x: Tensor, other: Tensor) -> Tensor:
    """For each pair of x and other (B, C, H, W), the share of gates that are open in both or shut in both, (B,).

    A gate is a unit of ReLU's kind and open where its input is above zero. NaN if the model has none.
    """
    same = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    gates = 0

    def look(given: Tensor) -> None:
        nonlocal gates, same
        # Not a batch of the images: a parameter, say.
        if not given.dim() or len(given) != 2 * len(x):
            return
        open_ = (given > 0).flatten(1)
        first, second = open_.chunk(2)
        same = same + (first == second).sum(1)
        gates += open_.shape[1]

    with torch.no_grad(), _Watch(look):
        model(torch.cat([x, other]))
    return same / gates if gates else torch.full_like(same, torch.nan, dtype=torch.float32)


def open_share(model: nn.Module, x: Tensor) -> Tensor:
    """The share of open gates for each of x (B, C, H, W), (B,). NaN if the model has none."""
    opened = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    gates = 0

    def look(given: Tensor) -> None:
        nonlocal gates, opened
        if not given.dim() or len(given) != len(x):
            return
        opened = opened + (given > 0).flatten(1).sum(1)
        gates += given[0].numel()

    with torch.no_grad(), _Watch(look):
        model(x)
    return opened / gates if gates else torch.full_like(opened, torch.nan, dtype=torch.float32)
