"""Collectors along a training: what they find at the end of an epoch stands in its line of the history.

They see what validation sees: its examples, the averaged weights where there are any, eval mode, fp32. Their random
numbers are their own, and the same at every look, so that a curve shows the weights and not the draws. Nothing of the
training depends on whether they look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from advbench.checkpoint import Progress
from advbench.collect import Tried, tried
from advbench.collectors.base import Collector
from advbench.collectors.updates import Turns
from advbench.data.base import Examples
from advbench.parallel import Group
from advbench.seeds import derive, own_streams
from advbench.threat import Threat

ALONG = "along the training"
"""How a note on a look during training begins."""


class Along:
    """Those of the `collectors` with an `every`, at one training; of several processes the first one looks."""

    def __init__(
        self, collectors: Sequence[Collector], optimizer: torch.optim.Optimizer, epochs: int, group: Group
    ) -> None:
        self.collectors = [collector for collector in collectors if collector.every]
        self.epochs, self.group = epochs, group
        watched = group.first and any(collector.along_only for collector in self.collectors)
        self.turns = Turns(optimizer) if watched else None

    def begin(self, at: Progress, device: torch.device) -> None:
        """An epoch begins, or goes on from a checkpoint."""
        if self.turns:
            self.turns.restore(at.turns, device)

    def keep(self, at: Progress) -> None:
        """A checkpoint is about to be written inside an epoch."""
        at.turns = self.turns.keep() if self.turns else {}

    def look(self, model: nn.Module, data: Examples, threat: Threat, at: Progress, say: Callable[[str], None]) -> None:
        """An epoch has ended, and `at` has its line. All processes come here together.

        The last epoch counts as one of `every`, wherever it comes: a curve should end where the training does.
        """
        last = at.stopped or at.epoch >= self.epochs
        due = [one for one in self.collectors if one.every and (last or at.epoch % one.every == 0)]
        at.turns = {}
        if not due:
            return
        line, at.notes = self.group.told(self._found(due, model, data, threat, at, say) if self.group.first else None)
        at.history[-1] |= line

    def _found(
        self,
        due: list[Collector],
        model: nn.Module,
        data: Examples,
        threat: Threat,
        at: Progress,
        say: Callable[[str], None],
    ) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        began, seed = time.perf_counter(), derive(0, "along")
        looking = [one for one in due if not one.along_only]
        tries = [Tried(one.name, self.turns.read(), 0) for one in due if one.along_only and self.turns]
        with own_streams(seed, data.device):
            tries += tried(model, data, threat, looking, seed=seed, say=lambda words: say(f"collecting: {words}"))
        found = {one.name: one.measures for one in tries}
        notes = {name: dict(said) for name, said in at.notes.items()}
        measured: dict[str, dict[str, float | None]] = {}
        for one in due:
            measures = found[one.name]
            if measures.values:
                measured[one.name] = {name: value.value for name, value in measures.values.items()}
            text = "; ".join(measures.notes)
            # Once for all looks that found something, and once for each reason why there was nothing.
            occasion = "found" if measures.values else text
            when = f"{ALONG}, first after epoch {at.epoch}" + ("" if one.along_only else ", on validation examples")
            notes.setdefault(one.name, {}).setdefault(occasion, f"{when}: {text}")
        line: dict[str, Any] = {"measures": measured} if measured else {}
        return line | {"collect_seconds": round(time.perf_counter() - began, 3)}, notes
