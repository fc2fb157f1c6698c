"""Gradients on their way between processes: averaged as they are, in bf16, or in 8 bits.

`Exchange` wraps a model in DistributedDataParallel, whose hook is called for every bucket of gradients that a backward
pass has finished. Only what is sent changes: every process ends with the same bytes, and so with the same weights.
"""

from __future__ import annotations

import time
import warnings
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

Compression = Literal["none", "bf16", "int8"]

LEVELS = 127
"""Magnitudes of 7 bits; the eighth is the sign."""
BUCKET = 512
"""Entries that share a scale. One scale for a layer of a million entries would make the noise larger than the signal:
its variance is up to sqrt(d) / LEVELS of the squared norm of d entries."""


def quantise(values: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Values (n * BUCKET,) as int8 (n, BUCKET) in units of LEVELS to their bucket's L2 norm, and the norms (n,) fp32.

    Rounded up with the probability of what is cut off, so that the mean over draws is the value itself. Alistarh et
    al., NeurIPS 2017 (arXiv 1610.02132), section 3.1; Zhang et al., UAI 2022 (arXiv 2206.06257), for this training.
    """
    rows = values.float().view(-1, BUCKET)
    norms = torch.linalg.vector_norm(rows, dim=1)
    scaled = rows.abs() * (LEVELS / norms.clamp_min(torch.finfo(torch.float32).tiny))[:, None]
    noise = torch.rand(scaled.shape, generator=generator, device=scaled.device)
    # A lone entry is its bucket's norm but for a rounding, which must not lift it over what int8 holds.
    levels = (scaled + noise).floor_().clamp_max_(LEVELS)
    return (levels * rows.sign()).to(torch.int8), norms


def dequantise(levels: Tensor, norms: Tensor) -> Tensor:
    """What `quantise` wrote, (n * BUCKET,) fp32; a norm that is not finite makes its whole bucket so."""
    return (levels.float() * (norms / LEVELS)[:, None]).view(-1)


def _packed(values: Tensor, generator: torch.Generator) -> Tensor:
    """Values (parts, n) as bytes (parts, n + 4 n / BUCKET): levels, then norms."""
    levels, norms = quantise(values.reshape(-1), generator)
    parts = len(values)
    return torch.cat([levels.view(parts, -1).view(torch.uint8), norms.view(parts, -1).view(torch.uint8)], 1)


def _unpacked(message: Tensor, count: int) -> Tensor:
    """The values (parts, count) of a message."""
    levels = message[:, :count].contiguous().view(torch.int8).view(-1, BUCKET)
    norms = message[:, count:].contiguous().view(torch.float32).view(-1)
    return dequantise(levels, norms).view(len(message), count)


class Clock:
    """Seconds since it was made, once the device has done what it was given: without that wait they would be nobody's.

    A few such waits a step are not seen beside an attack.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started = 0.0
        self.started = self.seconds()

    def seconds(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - self.started


def _now(device: torch.device) -> Any:
    """This moment; on CUDA that of the device's, at which it will have done what it was given so far.

    The host goes on while nccl sends, and so its own clock would tell the time of a launch.
    """
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _between(start: Any, end: Any) -> float:
    """Seconds; on CUDA once the device has passed both."""
    return end - start if isinstance(start, float) else start.elapsed_time(end) / 1000


class Exchange:
    """`model`, wrapped so that a backward pass leaves the mean gradient of all processes, and what was sent for it.

    The wrapped model's weights and buffers become the first process's. Batch norm's statistics stay each one's own.
    """

    def __init__(self, model: nn.Module, compression: Compression) -> None:
        device = next(model.parameters()).device
        with warnings.catch_warnings():
            # torch 2.15 has a new name for it, which 2.11 does not know.
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            # Buffers sent before every forward pass would overwrite what local batch norm has seen.
            self.model = DistributedDataParallel(model, broadcast_buffers=False)
        # A lambda, because torch checks the annotations of a hook and cannot read those that are kept as text.
        self.model.register_comm_hook(None, lambda _, bucket: self._send(bucket.buffer()))
        self.compression = compression
        self.roundings = torch.Generator(device)
        self.sent = 0
        """Bytes that left this process in this step; an all-reduce is counted as the ring that moves the least."""
        self.device = device
        self._moments: list[Any] = []
        """Of each bucket, when it was handed over and when that was done; then when the last one had arrived."""

    def begin(self, draws: torch.Generator, rank: int) -> None:
        """A step begins. `draws` is in the same state in every process; each rounds by numbers of its own."""
        self.sent, self._moments = 0, []
        if self.compression == "int8":
            seed = torch.randint(2**62, (1,), generator=draws, device=draws.device)
            self.roundings.manual_seed(int(seed) + rank)

    def end(self) -> None:
        """The backward pass is over, and with it the exchange."""
        self._moments.append(_now(self.device))

    def waited(self) -> float:
        """Seconds that training has stood still for this step's gradients; after `end` and a look at a Clock."""
        *sends, last, end = self._moments
        steps = zip(sends[::2], [*sends[1::2], last], strict=True)
        return sum(_between(*step) for step in steps) + _between(last, end)

    def _send(self, gradients: Tensor) -> Future[Tensor]:
        self._moments.append(_now(self.device))
        sent = self._in_8_bits(gradients) if self.compression == "int8" else self._whole(gradients)
        self._moments.append(_now(self.device))
        return sent

    def _whole(self, gradients: Tensor) -> Future[Tensor]:
        world = dist.get_world_size()
        message = gradients / world
        if self.compression == "bf16":
            message = message.to(torch.bfloat16)
        self.sent += 2 * (world - 1) * message.nbytes // world
        work: Any = dist.all_reduce(message, async_op=True)

        def arrived(done: Future[Any]) -> Tensor:
            return gradients.copy_(done.value()[0])

        return work.get_future().then(arrived)

    def _in_8_bits(self, gradients: Tensor) -> Future[Tensor]:
        """Each process averages one part of the gradients of all, and sends it to all.

        On M processes that is twice (M - 1) / M of a byte an entry; gathering everybody's gradients would cost M - 1.
        """
        world = dist.get_world_size()
        part = -(-len(gradients) // (world * BUCKET)) * BUCKET
        padded = gradients.new_zeros(world, part)
        padded.view(-1)[: len(gradients)] = gradients
        message = _packed(padded, self.roundings)
        heard = torch.empty_like(message)
        dist.all_to_all_single(heard, message)
        self.sent += (world - 1) * message.nbytes // world
        message = _packed(_unpacked(heard, part).mean(0, keepdim=True), self.roundings)
        heard = message.new_empty(world, message.shape[1])
        dist.all_gather_into_tensor(heard, message)
        self.sent += (world - 1) * message.nbytes
        gradients.copy_(_unpacked(heard, part).view(-1)[: len(gradients)])
        future: Future[Tensor] = Future()
        future.set_result(gradients)
        return future
