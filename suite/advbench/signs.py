"""Signs: what a model shows of itself before any attack, from a few passes over a few images.

Attacks that follow gradients take a model for a function of each image alone: deterministic, with logits for outputs
and with a gradient worth following. Where it is not, their failure is no robustness. Carlini et al., On Evaluating
Adversarial Robustness (arXiv 1902.06705); Croce et al., ICML 2022 (arXiv 2202.13711), on defenses that optimise.

Only the call is looked at, never the inside, so that a layer's name cannot hide anything.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from advbench.losses import cross_entropy, margin

Loss = Callable[[Tensor, Tensor], Tensor]

ROUNDING = 1e-3
"""What rounding may do to a logit, as a share of the largest one. Summing float32 in another order moves it by 1e-6 a
layer, and a convolution by Winograd's algorithm, which one batch gets and another does not, by up to 1e-4."""

REPEATS = 4
"""Passes over one batch. A coin that is tossed once a pass falls alike in all of them one time in eight."""

PAIRS = 8
"""Images that go through the model by themselves. Who depends on the batch does so for every image."""

AUTOGRAD = frozenset(
    function.__code__ for function in (torch.autograd.grad, torch.autograd.backward, forward_ad.make_dual)
)
"""Where every derivative passes through in Python: Tensor.backward and torch.func come by here, on every device."""


@dataclass(frozen=True)
class Signs:
    """What a model showed on a few images without an attack."""

    images: int
    correct: int
    """How many of them are classified correctly, with finite logits."""
    softmax: bool
    """The outputs are probabilities: in [0, 1], with a sum of one for every image."""
    nonfinite: int
    """Images with a logit that is NaN or infinite."""
    stochastic: float
    """Largest difference of a logit between passes over the same batch, as a share of the largest logit."""
    changed: float
    """Share of images whose prediction was not the same in all of these passes."""
    batch: float
    """The same between an image in the batch, in the batch in another order, and by itself."""
    regrouped: float
    """Share of images whose prediction was not the same in these."""
    optimises: bool
    """Derivatives were taken inside the forward pass."""
    disconnected: bool
    """The logits carry no gradient to the input at all."""
    saturated: float
    """Share of the correct images where the cross-entropy has an input gradient of exactly zero."""
    logits_flat: float
    """Share of them where the logits' own differences have none either."""


def signs(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Signs:
    """Look at `model` on the images x (N, C, H, W) in [0, 1] with labels y (N,), N >= 1.

    Modes, parameters, buffers and torch's global random streams are afterwards what they were; the random numbers of a
    model that draws from those are the same at every call. Some 14 forward passes, three of them with a backward.
    """
    with _untouched(model, x.device):
        joined = connected(model, x)
        # A pass for each loss: a compiled model has its graph but once. And it takes derivatives while it is compiled,
        # so what the first pass does counts for nothing.
        logits, saturated, _ = _look(joined, x, y, cross_entropy)
        again, flat, optimises = _look(joined, x, y, margin)
        with torch.no_grad():
            same = [again, *(model(x) for _ in range(REPEATS - 2))]
            # In a pair with its copy: batch norm in training mode refuses a batch of one.
            alone = [model(torch.stack([image, image]))[:1] for image in x[:PAIRS]]
            groups = [model(x.flip(0)).flip(0), torch.cat(alone)]
    finite = logits.isfinite().all(1)
    correct = finite & (logits.argmax(1) == y)
    count = int(correct.sum())
    stochastic, changed = _apart(logits, same)
    batch, regrouped = _apart(logits, groups)
    return Signs(
        images=len(x),
        correct=count,
        softmax=_probabilities(logits[finite]),
        nonfinite=int((~finite).sum()),
        stochastic=stochastic,
        changed=changed,
        batch=batch,
        regrouped=regrouped,
        optimises=optimises,
        disconnected=joined is not model,
        saturated=int(saturated[correct].sum()) / max(1, count),
        logits_flat=int((saturated & flat)[correct].sum()) / max(1, count),
    )


class Connected(nn.Module):
    """A model whose logits have no gradient to the input, with one of zero: attacks on it fail, but run."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        if hasattr(model, "reject"):
            self.reject = model.reject  # its detector stays its own

    def forward(self, x: Tensor) -> Tensor:
        # Detached, for a pass through bytes often leaves torch, and `numpy()` refuses what asks for a gradient.
        return self.model(x.detach()) + 0 * x.flatten(1).sum(1, keepdim=True)


def connected(model: Any, x: Tensor) -> Any:
    """`model` itself where its logits carry a gradient to the images x (N, ...), or else a `Connected` around it.

    Asked once, so that a connected model is not touched; like `signs` it leaves no trace. Raises what the model raises.
    """
    x = x.detach().requires_grad_()
    slopes: Sequence[Tensor | None] = (None,)
    with _untouched(model, x.device), torch.enable_grad():
        try:
            logits = model(x)
        except RuntimeError as error:
            if "numpy()" not in str(error):
                raise
            return Connected(model)
        if logits.requires_grad:
            slopes = torch.autograd.grad(logits.sum(), x, allow_unused=True)
    return Connected(model) if slopes[0] is None else model


def _look(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor, bool]:
    """Logits (N, C); where the loss has an input gradient of exactly zero, (N,); whether the model took derivatives."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        with _watching() as seen:
            logits = model(x)
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return logits.detach(), (gradient == 0).flatten(1).all(1), bool(seen)


@contextmanager
def _watching() -> Generator[list[str]]:
    """Fills with what takes derivatives meanwhile, in this thread or in one that starts.

    Known by the code that is called, not by its name: a model may well have a method `grad`.
    """
    seen: list[str] = []

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in AUTOGRAD:
            seen.append(frame.f_code.co_name)

    before, before_in_threads = sys.getprofile(), threading.getprofile()
    sys.setprofile(look)
    threading.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(before)
        threading.setprofile(before_in_threads)  # pyright: ignore[reportArgumentType] (None takes it away)


def _apart(logits: Tensor, others: list[Tensor]) -> tuple[float, float]:
    """Largest difference of a finite logit, as a share of the largest one; share of predictions that differ.

    `others` hold the first images of `logits` (N, C), all or some.
    """
    difference, size = logits.new_zeros(()), logits.new_zeros(())
    changed = torch.zeros(len(logits), dtype=torch.bool, device=logits.device)
    for other in others:
        one = logits[: len(other)]
        finite = one.isfinite() & other.isfinite()
        one_there, other_there = (torch.where(finite, values, 0) for values in (one, other))
        difference = torch.maximum(difference, (one_there - other_there).abs().max())
        size = torch.maximum(size, torch.maximum(one_there.abs().max(), other_there.abs().max()))
        changed[: len(other)] |= one.argmax(1) != other.argmax(1)
    return float(difference / size.clamp_min(torch.finfo(size.dtype).tiny)), float(changed.float().mean())


def _probabilities(logits: Tensor) -> bool:
    inside = (logits >= 0) & (logits <= 1 + ROUNDING)
    return len(logits) > 0 and bool(inside.all() and ((logits.sum(1) - 1).abs() <= ROUNDING).all())


@contextmanager
def _untouched(model: Callable[[Tensor], Tensor], device: torch.device) -> Generator[None]:
    """Modes, parameters, buffers and random streams as they were before, on the way out; streams of their own inside.

    Batch norm in training mode moves its statistics, and a defense may adapt its weights to what it sees.
    """
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [(module, module.training) for module in modules]
    kept = [
        (module, name, tensor, tensor.detach().clone())
        for module in modules
        for own in (module.named_parameters(recurse=False), module.named_buffers(recurse=False))
        for name, tensor in own
    ]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(0)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(0)
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
            with torch.no_grad():
                for module, name, tensor, content in kept:
                    tensor.copy_(content)
                    setattr(module, name, tensor)
