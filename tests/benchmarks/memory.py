"""How much memory each part of the standard verdict takes at its peak, beside one forward and backward pass.

    python tests/benchmarks/memory.py TASK JOB RESULTS [--examples 200] [--data-root data]

takes the best weights of a job that `advbench run` has left in RESULTS. Each attack runs a few of its steps on the
examples that the model reads right, in one batch: every step takes as much as the first ones. Beside it stands a pass
of as many rows as the largest of its passes had, which are more than the examples where an attack has fewer of them
than it takes together. Bytes are those that torch allocates, model and images left out, as its profiler counts them.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import torch
from parity import Loaded, asking, load
from torch import nn
from torch.profiler import ProfilerActivity, profile

from advbench import find
from advbench.attacks.base import Attack
from advbench.inference import quick
from advbench.seeds import BlockNoise

ATTACKS = {
    "APGD-CE": {"name": "apgd", "loss": "ce", "steps": 10},
    "APGD-T": {"name": "apgd", "loss": "dlr-targeted", "steps": 10},
    "FAB-T": {"name": "fab", "steps": 10},
    "Square": {"name": "square", "queries": 50},
}


def peak(work: Callable[[], Any]) -> int:
    """Most bytes that lived at once while it worked, above those that were there before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        work()
    live = most = 0
    # In the order in which they happened.
    assert watched.profiler
    assert watched.profiler.kineto_results
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda one: one.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def both_ways(model: nn.Module, x: torch.Tensor) -> None:
    """One forward pass, and one backward to the pixels."""
    again = x.clone().requires_grad_()
    torch.autograd.grad(model(again).sum(), again)


def main() -> None:
    """Print a line an attack."""
    parser = asking(__doc__, examples=200)
    loaded: Loaded = load(parser.parse_args())
    x, y = loaded.test.pixels(slice(None)), loaded.test.labels
    for parameter in loaded.model.eval().parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        right = loaded.model(x).argmax(1) == y
    x, y, threat = x[right], y[right], loaded.threat
    for precision in ("fp32", "bf16"):
        model = quick(loaded.model, x[:8], precision)
        both_ways(model, x)  # whatever is made once is made
        for name, fields in ATTACKS.items():
            if precision == "bf16" and name == "Square":
                continue  # stays in fp32
            attack = find.named(Attack, fields)
            noise = BlockNoise(x.device, 0, len(x), torch.arange(len(x)))
            rows = 0

            def note(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
                nonlocal rows
                rows = max(rows, len(inputs[0]))

            with model.register_forward_pre_hook(note):
                most = peak(lambda model=model, attack=attack, noise=noise: attack.run(model, x, y, threat, noise))
            images = x.repeat(-(-rows // len(x)), 1, 1, 1)[:rows]
            one = peak(lambda model=model, images=images: both_ways(model, images))
            print(
                f"{precision}: {name:<8} {most / 2**20:8.1f} MiB, {most / one:.2f} of a pass of {rows} images",
                flush=True,
            )


if __name__ == "__main__":
    sys.exit(main())
