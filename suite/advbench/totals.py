"""Sums over the steps of an epoch and over the processes that share them."""

from __future__ import annotations

import time

from torch import Tensor

from advbench.checkpoint import Progress
from advbench.parallel import Group
from advbench.passes import Passes


class Totals:
    """Goes on from a `Progress`; kept on the device, so that no step waits for it, until `into` reads them.

    One addition follows the other whether or not a checkpoint came between them, so that it leaves no trace. What
    several processes had by then is the first one's from there on.
    """

    def __init__(self, at: Progress, group: Group) -> None:
        self.group = group
        self.loss: Tensor | float = at.loss_sum if group.first else 0.0
        self.reports: dict[str, tuple[Tensor | float, int]] = dict(at.reports) if group.first else {}
        self.started = time.perf_counter()

    def add(self, loss: Tensor, count: int, report: dict[str, Tensor | float]) -> None:
        """A step's mean loss and reports over `count` examples; empties `report`."""
        if self.group.world > 1:
            loss = loss.double()  # sums in another order then differ too little to be seen
        self.loss = self.loss + loss * count
        for name, value in report.items():
            value = value.detach() if isinstance(value, Tensor) else value  # or an epoch's graphs would pile up
            total, examples = self.reports.get(name, (0.0, 0))
            self.reports[name] = (total + value * count, examples + count)
        report.clear()

    def into(self, at: Progress, passes: Passes) -> None:
        """Write everything to `at`; all processes come here together. Nothing should be added afterwards."""
        names = sorted(self.group.told(sorted(self.reports)))
        mine = [float(self.loss), passes.forward, passes.backward]  # waits for the device: the clock is read after it
        mine += [float(value) for name in names for value in self.reports.get(name, (0.0, 0))]
        loss, forward, backward, *reports = self.group.total(mine)
        at.loss_sum = loss
        at.forward += int(forward)
        at.backward += int(backward)
        counts = zip(reports[::2], reports[1::2], strict=True)
        at.reports = {name: (total, int(count)) for name, (total, count) in zip(names, counts, strict=True)}
        at.seconds += time.perf_counter() - self.started
        passes.forward = passes.backward = 0
