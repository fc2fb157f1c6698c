"""How the passes of an evaluation run: batch norm folded, channels last, rounded where the attack allows it.

An attack may look for candidates with passes that are faster than exact. It never decides with them: what leaves it is
asked of the exact model (`judge`), and so is every candidate, by the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval

from advbench.passes import Passes, counting
from advbench.seeds import own_streams

Precision = Literal["fp32", "bf16"]

CLOSE = 1e-4
"""How far folded logits may lie from the model's own, as a share of the largest."""


class Quick(nn.Module):
    """A copy of a model in eval mode whose passes are faster; fp32 in, fp32 logits out.

    `precision = "bf16"` rounds the inside of a pass and of its backward; images, logits and losses stay fp32.
    """

    judge: nn.Module
    """The model itself."""
    folded: bool
    """Whether batch norms are parts of convolutions; otherwise it is a copy as it was."""

    def __init__(self, model: nn.Module, inside: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.folded = isinstance(inside, GraphModule)
        # Not as a submodule: it is somebody else's, and its passes are counted on its own account.
        self.__dict__["judge"] = model
        self.inside = inside
        self.bf16 = precision == "bf16"
        self.channels_last = any(isinstance(module, nn.Conv2d) for module in inside.modules())
        if self.channels_last:
            convert: Any = inside.to
            convert(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        if not self.bf16:
            return self.inside(x)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.inside(x).float()


def quick(model: nn.Module, x: Tensor, precision: Precision) -> nn.Module:
    """A faster `model`, or the model itself where none is the same function on the images x (N, C, H, W).

    The model must be in eval mode and is left as it is.
    """
    if any(parameter.dtype != torch.float32 for parameter in model.parameters()):
        return model
    with torch.no_grad():
        exact = model(x)
        # What answers differently each time has no copy that answers alike.
        if not torch.equal(exact, model(x)):
            return model
        for copy in (folded, deepcopy):
            try:
                found = Quick(model, copy(model), "fp32")
                off = (found(x) - exact).abs().max() / exact.abs().max().clamp_min(1e-30)
            except Exception:  # whatever tracing or copying a stranger's model may raise  # noqa: S112
                continue
            if off <= CLOSE:
                found.bf16 = precision == "bf16"
                return found
    return model


def folded(model: nn.Module) -> GraphModule:
    """A copy of `model` in which a batch norm that follows a convolution is a part of it. Raises where torch.fx does.

    W' = W gamma / sigma and b' = beta + (b - mu) gamma / sigma, by output channel.
    """
    graph = symbolic_trace(deepcopy(model))
    modules: dict[str, Any] = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        before = node.args[0]
        alone = getattr(before, "op", "") == "call_module" and len(before.users) == 1
        if not alone or type(modules[before.target]) is not nn.Conv2d:
            continue
        # A module that stands in the graph twice serves two places, and only one of them has this norm.
        calls = [other.target for other in graph.graph.nodes if other.op == "call_module"]
        if calls.count(before.target) + calls.count(node.target) > 2:
            continue
        fused = fuse_conv_bn_eval(modules[before.target], modules[node.target])
        parent, _, name = before.target.rpartition(".")
        setattr(modules[parent], name, fused)
        modules[before.target] = fused
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.recompile()
    return graph


def _kind(made: nn.Module) -> str:
    if not isinstance(made, Quick):
        return "the model itself"
    return "folded" if made.folded else "copy"


class Engines:
    """A model and its quick copies, each made when it is first asked for."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        """`x` (N, C, H, W): images on which a copy must be the model's function."""
        self.model = model
        self._x = x
        self._quick: dict[Precision, nn.Module] = {}

    def of(self, precision: Precision | None) -> nn.Module:
        """The quick copy of that number format, or the model itself for None."""
        if precision is None:
            return self.model
        while precision not in self._quick:
            try:
                # A model that draws random numbers must not draw others later because a copy was tried here.
                with own_streams(0, self._x.device):
                    self._quick[precision] = quick(self.model, self._x, precision)
            except torch.OutOfMemoryError:
                if len(self._x) == 1:
                    raise
                self._x = self._x[: len(self._x) // 2]
        return self._quick[precision]

    def told(self) -> dict[str, str]:
        """By number format: whether candidates were looked for with a "folded" copy, a plain "copy" or the model."""
        return {name: _kind(made) for name, made in sorted(self._quick.items())}

    @contextmanager
    def counting(
        self, precision: Precision | None, watch: Callable[[Passes], None] | None = None
    ) -> Generator[tuple[nn.Module, list[Passes]]]:
        """A model to look for candidates with, and the counts of all passes, the exact model's included."""
        used = {id(model): model for model in (self.model, self.of(precision))}
        with ExitStack() as stack:
            yield self.of(precision), [stack.enter_context(counting(model, watch)) for model in used.values()]
