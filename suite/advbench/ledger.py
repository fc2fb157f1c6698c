"""The ledger of one block of examples: the only place where an example is marked as broken.

Attacks propose; `judge` checks in float32, in a forward pass of its own, that a candidate lies in the ball and
the box and that the model is fooled by it. The ledger is also the journal: it is one file, written after every
rung, and a killed evaluation goes on from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from advbench.judge import judge
from advbench.losses import margin
from advbench.seal import keep, sound
from advbench.threat import Threat

STANDING, CLEAN = -1, -2
"""Values of `broken_by` beside the rungs 0, 1, ...: nothing broke it; it was wrong without an attack."""


@dataclass
class Ledger:
    """A block of n examples on a device. All tensors have n rows."""

    x: Tensor
    labels: Tensor
    index: Tensor
    """Position in the official test split."""
    predicted: Tensor
    margin: Tensor
    """Of the clean example: its label's logit minus the best other one."""
    flat: Tensor
    """Whether the loss has an input gradient of exactly zero at the clean example (bool)."""
    refused: Tensor
    """Whether the model's detector, if it has one, refuses the clean example (bool)."""
    broken_by: Tensor
    """int64: STANDING, CLEAN, or the number of the rung."""
    adversarial: Tensor
    """The candidate that broke it; x where none did."""
    distance: Tensor
    """float64: of the nearest point that is known to fool the model, in the threat's norm; inf where none is."""
    forward: Tensor
    backward: Tensor
    """int64 example passes spent on it."""
    withstood: dict[str, Tensor]
    """By attack alone, int8: 1 withstood, 0 broken, -1 not tried."""
    done: list[str]
    """Rungs finished."""
    seconds: float = 0
    """Time that they took, in whichever process."""
    votes: int = 1
    """Passes that decide together what the model says (`judge`)."""
    detector: bool = False
    """Whether the model may refuse to answer."""

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names of the tensors."""
        return tuple(f.name for f in fields(cls) if f.type == "Tensor")

    @classmethod
    def open(cls, x: Tensor, labels: Tensor, index: Tensor, votes: int = 1) -> Ledger:
        """A fresh ledger; `clean` must fill in what the model says."""
        n, device = len(labels), x.device
        zeros = torch.zeros(n, dtype=torch.int64, device=device)
        return cls(
            x=x,
            labels=labels,
            index=index,
            predicted=zeros.clone(),
            margin=torch.zeros(n, device=device),
            flat=torch.zeros(n, dtype=torch.bool, device=device),
            refused=torch.zeros(n, dtype=torch.bool, device=device),
            broken_by=torch.full((n,), STANDING, device=device),
            adversarial=x.clone(),
            distance=torch.full((n,), torch.inf, dtype=torch.float64, device=device),
            forward=zeros.clone(),
            backward=zeros.clone(),
            withstood={},
            done=[],
            votes=votes,
        )

    def to(self, device: torch.device | str) -> Ledger:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in self.columns()}
        return replace(self, **moved, withstood={name: column.to(device) for name, column in self.withstood.items()})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> Tensor:
        """Rows that are right without an attack."""
        return (self.broken_by != CLEAN).nonzero().squeeze(1)

    @property
    def standing(self) -> Tensor:
        """Rows that nothing has broken yet."""
        return (self.broken_by == STANDING).nonzero().squeeze(1)

    def clean(self, model: nn.Module, rows: Tensor) -> None:
        """Write down what the model says of the untouched examples `rows`."""
        said = judge(model, self.x[rows], self.labels[rows], self.votes)
        self.broken_by[rows] = STANDING  # rather than what a first try said, for which the memory did not reach
        self.predicted[rows] = said.logits.argmax(1)
        self.margin[rows] = margin(said.logits, self.labels[rows])
        self.refused[rows] = said.refused
        self.detector = callable(getattr(model, "reject", None))
        self.broken_by[rows[~said.right]] = CLEAN

    @torch.no_grad()
    def judge(self, model: nn.Module, threat: Threat, rows: Tensor, candidates: Tensor) -> Tensor:
        """Which `rows` the candidates really break, (len(rows),) bool; how near they are is written down."""
        candidates, x = candidates.detach().float(), self.x[rows]
        broken = judge(model, candidates, self.labels[rows], self.votes).fooled & threat.contains(candidates, x)
        away = threat.size(candidates[broken].double() - x[broken].double())
        self.distance[rows[broken]] = self.distance[rows[broken]].minimum(away)
        return broken

    def enter(self, rung: int, rows: Tensor, broken: Tensor, candidates: Tensor) -> None:
        """Mark those of `rows` that are `broken` and still stood; the first rung that breaks one has it."""
        fell = broken & (self.broken_by[rows] == STANDING)
        self.broken_by[rows[fell]] = rung
        self.adversarial[rows[fell]] = candidates[fell].detach().float()

    def note_alone(self, name: str, rows: Tensor, broken: Tensor, *, everywhere: bool = True) -> None:
        """Write down how `rows` did against one attack alone; met `everywhere`, the clean errors count as broken."""
        column = torch.full_like(self.broken_by, -1, dtype=torch.int8)
        if everywhere:
            column[self.broken_by == CLEAN] = 0
        column[rows] = (~broken).to(torch.int8)
        self.withstood[name] = column

    def spend(self, rows: Tensor, forward: int, backward: int) -> None:
        """Share passes among the rows they were for, exactly in sum.

        Our own attacks spend equally on every row of a batch. A package does not say which example a pass
        was for, so its total is shared evenly among those that entered.
        """
        for column, passes in ((self.forward, forward), (self.backward, backward)):
            share, rest = divmod(passes, len(rows))
            column[rows] += share
            column[rows[:rest]] += 1

    def write(self, path: Path, key: str) -> None:
        """Keep the ledger's state in one atomic file; `key` names the weights and the protocol it is for."""
        tensors: dict[str, Tensor] = {name: getattr(self, name) for name in self.columns() if name != "x"}
        tensors |= {f"withstood/{name}": column for name, column in self.withstood.items()}
        content = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        said = {"key": key, "done": json.dumps(self.done), "seconds": str(self.seconds), "detector": str(self.detector)}
        keep(path, save(content, metadata=said))

    def read(self, path: Path, key: str) -> bool:
        """Take over the state that `write` kept, if it is there, whole and for `key`."""
        try:
            if sound(path.name, path.read_bytes()) is False:
                return False
            with safe_open(str(path), framework="pt", device=str(self.x.device)) as file:
                metadata = file.metadata()
                if metadata["key"] != key:
                    return False
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        except (OSError, SafetensorError, KeyError, TypeError):
            return False
        self.withstood = {n.removeprefix("withstood/"): t for n, t in tensors.items() if n.startswith("withstood/")}
        for name, tensor in tensors.items():
            if not name.startswith("withstood/"):
                setattr(self, name, tensor)
        self.done, self.seconds = json.loads(metadata["done"]), float(metadata["seconds"])
        self.detector = metadata["detector"] == "True"
        return True
