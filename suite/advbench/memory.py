"""Work in batches that the device's memory can hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


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
