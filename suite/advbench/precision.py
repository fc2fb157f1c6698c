"""How training passes run: number format, memory layout, compiled or eager.

A faster format may look for adversarial examples and for weights; what judges runs in fp32 (`exact`), and so does what
is differentiated twice, which torch.compile refuses. Only the inside of a forward pass and of its backward is bf16:
weights, logits, losses, iterates and balls stay fp32.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from advbench.losses import cross_entropy
from advbench.recipe import Training

COMPILE_FROM = 50_000
"""Forward passes from which compiling is worth its minute or two of warm-up (PGD-10 AT: some 12 epochs of CIFAR-10)."""
SIZES = 2
"""Batch sizes that a compiled graph each is made for: the whole batch and an epoch's last one."""
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-2}
"""How far compiled logits and input gradients may lie from eager ones, as a share of their largest entry; bf16 keeps
8 bits, and a rounding may fall the other way in every layer."""


@dataclass(frozen=True)
class Engine:
    """What was chosen for a job's training passes; the record keeps it."""

    precision: str = "fp32"
    channels_last: bool = False
    compiled: bool = False
    micro_batch: int = 0
    """Examples at a time, where a whole batch did not fit the device's memory."""
    note: str = ""
    """Why it was not compiled after all, or how far compiled passes lie from eager ones."""


def bf16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bf16 natively; elsewhere it is emulated, and slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # Older builds of torch do not tell; nothing is then taken for granted.
    known: Any = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(known.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))


def choose(training: Training, device: torch.device, model: nn.Module, passes: Callable[[], float]) -> Engine:
    """The engine for a training of so many forward `passes`; a function of job and device, not of time."""
    bf16 = training.precision == "bf16" or (training.precision == "auto" and bf16_is_fast(device))
    return Engine(
        precision="bf16" if bf16 else "fp32",
        # The kernels of convolutions want the channels of a pixel side by side.
        channels_last=any(isinstance(module, nn.Conv2d) for module in model.modules()),
        compiled=training.compile == "on"
        or (training.compile == "auto" and device.type == "cuda" and passes() >= COMPILE_FROM),
    )


def _compiled(forward: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    """Fast for the first SIZES batch sizes; all others share a graph.

    One each would soon be more than torch puts up with, where an attack lets examples go and the batch shrinks.
    """
    from torch._dynamo import maybe_mark_dynamic  # seconds to import, for those who compile

    run, sizes = torch.compile(forward, dynamic=False), set[int]()

    def passes(model: nn.Module, x: Tensor) -> Tensor:
        if len(sizes) < SIZES:
            sizes.add(len(x))
        if len(x) not in sizes:
            maybe_mark_dynamic(x, 0)
        return run(model, x)

    return passes


@contextmanager
def fast(model: nn.Module, engine: Engine) -> Generator[None]:
    """Inside, every forward pass of `model` runs as `engine` says, whoever asks for it; logits are fp32."""
    plain: Any = type(model)
    device = next(model.parameters()).device.type
    run = _compiled(plain.forward) if engine.compiled else plain.forward
    if engine.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # Another class and not another attribute: a copy that a defense makes of the model must use its own weights.
    class Fast(plain):
        exactly = plain

        def forward(self, x: Tensor) -> Tensor:
            if engine.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16, enabled=engine.precision == "bf16"):
                return run(self, x).float()

    model.__class__ = Fast
    try:
        yield
    finally:
        model.__class__ = plain
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


@contextmanager
def exact(model: nn.Module) -> Generator[None]:
    """Inside, passes of `model` are fp32 and eager again, whatever surrounds them."""
    around = type(model)
    model.__class__ = getattr(around, "exactly", around)
    try:
        yield
    finally:
        model.__class__ = around


def proven(model: nn.Module, engine: Engine, x: Tensor, y: Tensor) -> Engine:
    """The engine itself where its compiled passes agree with eager ones on a batch, otherwise its eager sibling.

    x (N, C, H, W), y (N,). The model, its batch-norm statistics and torch's random state are left as they were.
    """
    if not engine.compiled:
        return engine
    eager = replace(engine, compiled=False)
    expected = _probe(model, eager, x, y)
    try:
        found = _probe(model, engine, x, y)
    except Exception as error:  # whatever a compiler may raise on a stranger's model
        said = (str(error).strip() or "no reason given").splitlines()[0]
        return replace(eager, note=f"not compiled: {type(error).__name__}: {said}")
    off = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(found, expected, strict=True))
    if not off <= TOLERANCE[engine.precision]:
        return replace(eager, note=f"not compiled: compiled and eager passes differ by {off:.2g} of the largest entry")
    return replace(engine, note=f"compiled passes lie {off:.1g} of the largest entry from eager ones")


def _probe(model: nn.Module, engine: Engine, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and input gradients in train mode, as attacks during training see them."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), fast(model, engine), torch.enable_grad():
        torch.manual_seed(0)
        x = x.detach().requires_grad_()
        logits = model(x)
        gradient = torch.autograd.grad(cross_entropy(logits, y).sum(), x)[0]
    model.load_state_dict(before)
    return logits.detach(), gradient
