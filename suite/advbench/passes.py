"""Cost in example passes: how many examples went forward through the model, and how many came back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class Passes:
    """Counts of example passes; a batch of 128 is 128 passes."""

    forward: int = 0
    backward: int = 0
    seen: Tensor | None = field(default=None, compare=False)
    """What the latest forward pass was given."""


@contextmanager
def counting(model: nn.Module, watch: Callable[[Passes], None] | None = None) -> Generator[Passes]:
    """Count every pass through `model` inside the block, whoever makes it; `watch` sees the count as it grows.

    A backward pass is counted when a gradient reaches the model's output, so it makes no difference
    whether the caller used `.backward()` or `autograd.grad`, nor to what it differentiated.
    """
    passes = Passes()

    def forward_hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        count = len(output)
        passes.seen = inputs[0].detach()
        passes.forward += count
        if watch:
            watch(passes)
        if output.requires_grad:

            def backward_hook(_grad: Tensor) -> None:
                passes.backward += count

            output.register_hook(backward_hook)

    handle = model.register_forward_hook(forward_hook)
    try:
        yield passes
    finally:
        handle.remove()
