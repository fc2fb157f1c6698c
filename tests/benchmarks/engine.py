"""What the standard verdict costs on our engine, on the authors' package and on torchattacks, side by side.

    python tests/benchmarks/engine.py TASK JOB RESULTS [--examples 500] [--threads 1] [--turns 1] [--data-root data]

takes the best weights of a job that `advbench run` has left in RESULTS and gives the same test examples to each, in
turn. The floor is what the passes alone would take: their number, times the CPU seconds of a bare pass through the same
engine at the same batch.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch
from parity import KINDS, Loaded, asking, attack, load
from torch import nn

from advbench.inference import quick
from advbench.passes import counting


@dataclass(frozen=True)
class Turn:
    """One attack on all examples."""

    seconds: float
    robust: float
    forward: int
    backward: int


def turn(kind: str, loaded: Loaded, seed: int) -> Turn:
    """CPU seconds of one kind of AutoAttack."""
    started = time.process_time()
    if kind == "torchattacks":
        return torchattacks(loaded, seed)
    found = attack(kind, loaded, seed)
    seconds = time.process_time() - started
    ledger = found.ledger
    robust = float((ledger.broken_by == -1).float().mean())
    return Turn(seconds, robust, int(ledger.forward.sum()), int(ledger.backward.sum()))


def torchattacks(loaded: Loaded, seed: int) -> Turn:
    """Another library's AutoAttack, on the correct examples; whether it fooled the model is asked of the model."""
    # By name, because a check of types need not have it.
    library: Any = importlib.import_module("torchattacks")
    model, x, y = loaded.model.eval(), loaded.test.pixels(slice(None)), loaded.test.labels
    started = time.process_time()
    with torch.no_grad():
        right = model(x).argmax(1) == y
    with counting(model) as passes:
        made = library.AutoAttack(
            model, norm=loaded.threat.norm, eps=loaded.threat.eps, seed=seed, n_classes=loaded.classes, verbose=False
        )
        fooled = made(x[right], y[right])
    seconds = time.process_time() - started
    with torch.no_grad():
        robust = float((model(fooled).argmax(1) == y[right]).sum()) / len(y)
    return Turn(seconds, robust, passes.forward, passes.backward)


def floor(model: nn.Module, loaded: Loaded, seen: Turn) -> float:
    """Seconds of the same number of bare passes at the full batch."""
    x = loaded.test.pixels(slice(None))
    forward, both = [], []
    for _ in range(7):
        started = time.process_time()
        with torch.no_grad():
            model(x)
        forward.append(time.process_time() - started)
        started = time.process_time()
        again = x.clone().requires_grad_(True)
        torch.autograd.grad(model(again).sum(), again)
        both.append(time.process_time() - started)
    one, pair = min(forward) / len(x), min(both) / len(x)
    return (seen.forward - seen.backward) * one + seen.backward * pair


def main() -> None:
    """Print a line for each kind, and the ratios."""
    parser = asking(__doc__, examples=500)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--only", nargs="+", default=[*KINDS, "torchattacks"])
    asked = parser.parse_args()
    if "torchattacks" in asked.only and importlib.util.find_spec("torchattacks") is None:
        parser.error(f"torchattacks is not installed; install it, or say --only {' '.join(KINDS)}")
    loaded = load(asked)
    for parameter in loaded.model.eval().parameters():
        parameter.requires_grad_(False)
    turns: dict[str, list[Turn]] = {kind: [] for kind in asked.only}
    for seed in range(asked.turns):
        for kind in turns:
            seen = turn(kind, loaded, seed)
            turns[kind].append(seen)
            passes = f"{seen.forward:>10,} forward {seen.backward:>10,} backward"
            print(f"turn {seed} {kind:<12} {seen.seconds:8.1f} s {passes}  robust {seen.robust:.4f}", flush=True)
    median = {kind: statistics.median(seen.seconds for seen in all_) for kind, all_ in turns.items()}
    for kind in [kind for kind in ("ours", "ours-bf16") if kind in turns]:
        engine = quick(loaded.model, loaded.test.pixels(slice(0, 8)), "fp32")
        bare = floor(engine, loaded, turns[kind][-1])
        against = {other: round(median[other] / median[kind], 2) for other in turns if not other.startswith("ours")}
        print(f"{kind}: times as fast {against}; {median[kind] / bare:.2f} of its fp32 floor of {bare:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
