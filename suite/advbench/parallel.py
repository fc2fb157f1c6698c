"""Processes that train one model together: who takes which examples, and what they tell each other.

Every process holds the whole model and a part of each batch. Outside `joined` there is one process, for which every
verb here costs nothing.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from advbench.spec import BadInput

PATIENCE = datetime.timedelta(days=7)
"""How long a process waits for the others: the first one may have hours of evaluation between two trainings. A
process that dies is noticed at once; a machine or a network that falls silent only after this time."""
WRECK = 3.0
"""Seconds for which, after one process has failed, the others wait to hear why."""


@dataclass(frozen=True)
class Group:
    """This process's place among those that share a training."""

    rank: int = 0
    world: int = 1
    store: Any = None
    """Where the processes met (torch's Store): it outlives a member."""

    @property
    def first(self) -> bool:
        """Whether this is the process that validates, writes and speaks."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This process's part of `count` examples; the parts differ by one example at the most."""
        return slice(count * self.rank // self.world, count * (self.rank + 1) // self.world)

    def weight(self, count: int) -> float:
        """What a mean over this process's rows weighs where means are averaged over processes; 1 for equal parts."""
        rows = self.rows(count)
        return (rows.stop - rows.start) * self.world / count

    def total(self, values: Sequence[float]) -> list[float]:
        """Each of `values`, which every process has in this order, summed over the processes."""
        if self.world == 1:
            return list(values)
        together = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(together)
        return together.tolist()

    def told(self, value: Any) -> Any:
        """What the first process says, with tensors on the CPU; the others' `value` is ignored."""
        if self.world == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def heard(self, value: Any) -> list[Any]:
        """What every process says, by rank; all of them hear it."""
        if self.world == 1:
            return [value]
        said: list[Any] = [None] * self.world
        dist.all_gather_object(said, value)
        return said

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Replace each gradient by its mean over the processes."""
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= self.world

    def fail(self, error: str) -> None:
        """Leave word, before ending, why this process fails; waits until the first one has read it."""
        assert self.store is not None
        with suppress(Exception):  # it may be the store's host that has gone
            self.store.set("advbench/failed", json.dumps([self.rank, error]))
            self.store.wait(["advbench/read"], datetime.timedelta(seconds=WRECK))

    def failure(self) -> tuple[int, str] | None:
        """The rank that left word and its error, asked by the first process once something is wrong."""
        assert self.store is not None
        try:
            self.store.wait(["advbench/failed"], datetime.timedelta(seconds=WRECK))
            rank, error = json.loads(self.store.get("advbench/failed"))
            self.store.set("advbench/read", "")
        except Exception:  # killed without a word, or the store's host has gone
            return None
        return rank, error


ALONE = Group()


def lost(error: Exception) -> bool:
    """Whether `error` says that the connection to another process broke; gloo and nccl have words for it."""
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("gloo/transport", "by peer", "ncclRemoteError")
    )


@contextmanager
def joined(rank: int, world: int, device: torch.device, meet: str) -> Generator[Group]:
    """Inside, `world` processes form a group; they meet at `meet` (torch's init_method).

    gloo between CPUs; on CUDA nccl, with gloo beside it for what lives on the CPU. Raises BadInput for a port in use.
    """
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        store, *_ = next(rendezvous(meet, rank, world))
    except dist.DistNetworkError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise BadInput(f"port {os.environ.get('MASTER_PORT')} is in use; set another MASTER_PORT") from None
    # A launcher that starts all of them again may bring them back to a store with the addresses of those who have gone.
    store = PrefixStore(f"attempt/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        yield Group(rank, world, store)
    finally:
        dist.destroy_process_group()


class _Sum(Function):
    """A sum over processes, as a function that gradients come back through: they are summed as well."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:  # noqa: ARG004 # torch's signature
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient)
        return gradient


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of the whole batch, over all processes.

    torch's own SyncBatchNorm exists for accelerators only.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 # torch's name
        if not self.training:
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        count = x.new_full((1,), x.numel() / x.shape[1])
        total: Any = _Sum.apply(torch.cat([x.sum((0, 2, 3)), count]))
        mean = total[:-1] / total[-1]
        centred = x - mean[:, None, None]
        variance: Any = _Sum.apply(centred.square().sum((0, 2, 3))) / total[-1]
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                assert self.num_batches_tracked is not None
                self.num_batches_tracked += 1
                move = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
                self.running_mean.lerp_(mean.to(self.running_mean), move)
                unbiased = variance * total[-1] / (total[-1] - 1)
                self.running_var.lerp_(unbiased.to(self.running_var), move)
        out = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        return out.to(input.dtype)


_ANY_KIND: Any = nn.BatchNorm2d.__base__
"""What all kinds of batch norm have in common."""
_SYNCHRONISED = (nn.BatchNorm2d, SynchronisedBatchNorm2d)


def synchronise(model: nn.Module) -> None:
    """Give every BatchNorm2d of `model` the statistics of the whole batch; names and values stay.

    Raises BadInput where the model has batch norm of another kind, which would go on by itself.
    """
    norms = [module for module in model.modules() if isinstance(module, _ANY_KIND)]
    others = {type(module).__name__ for module in norms if type(module) not in _SYNCHRONISED}
    if others:
        raise BadInput(f"sync_bn: knows BatchNorm2d only, and the model has {', '.join(sorted(others))}; leave it out")
    for module in norms:
        module.__class__ = SynchronisedBatchNorm2d
