"""Work in batches that the device's memory can hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

SHARE = 1 / 4
"""Of the free memory, for what a pass keeps until its backward pass: as much again is in use meanwhile, and other
workers may be at work."""


def free(device: torch.device) -> int | None:
    """Bytes of memory that are free on the device, or None where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def fitting(model: nn.Module, x: Tensor, most: int) -> int:
    """How many examples, at most `most`, may go through `model` at once; measured on the images x (2 or more, ...).

    What a forward pass of two keeps for its backward pass, less what one keeps, is what an example takes.
    """
    memory = free(x.device)
    if memory is None or len(x) < 2:
        return most
    kept = [_kept(model, x[:count]) for count in (1, 2)]
    return max(1, min(most, int(SHARE * memory / max(1, kept[1] - kept[0]))))


def _kept(model: nn.Module, x: Tensor) -> int:
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.enable_grad(), saved_tensors_hooks(count, lambda tensor: tensor):
        model(x.detach().requires_grad_())
    return total


@dataclass
class Size:
    """How many examples go forward at a time. It only ever shrinks: what did not fit once is not tried again."""

    batch: int
    say: Callable[[str], None]

    def each(self, rows: Tensor, work: Callable[[Tensor], None], *, whole: bool = False) -> None:
        """Do `work` on `rows` batch by batch, or on all at once if `whole`.

        A batch for which the device has no memory is cut in two. Raises torch.OutOfMemoryError when there is nothing
        to cut.
        """
        pending = [rows] if whole and len(rows) else list(rows.split(self.batch)) if len(rows) else []
        while pending:
            batch = pending.pop(0)
            try:
                work(batch)
                continue
            except torch.OutOfMemoryError:
                if whole:
                    raise torch.OutOfMemoryError(
                        f"out of device memory on {len(batch)} examples, which this attack takes in one batch; "
                        "lower evaluation.block"
                    ) from None
                if len(batch) == 1:
                    raise
            # Outside the handler, whose traceback would keep what filled the memory.
            if batch.is_cuda:
                torch.cuda.empty_cache()
            self.batch = (len(batch) + 1) // 2
            self.say(f"out of device memory: going on with {self.batch} examples at a time")
            pending = [piece for rest in (batch, *pending) for piece in rest.split(self.batch)]
