"""DAT over processes of one machine: images a second against one process, and bytes against fp32 gradients.

Equal batch a process (128), one thread each, PGD-10 on `mnist-cnn` with random images; medians of steps, runs in turn.

    python tests/benchmarks/distributed.py
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.multiprocessing.spawn import spawn

from advbench import find
from advbench.defense import TrainState
from advbench.models.mnist_cnn import MnistCnn
from advbench.parallel import joined
from advbench.precision import choose, fast
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.threat import Threat

BATCH, WARM, STEPS, TURNS = 128, 5, 40, 3
TRAINING = Training(epochs=1, lr=0.02)


def work(rank: int, world: int, gradients: str, meet: str, out: str) -> None:
    """One process: WARM + STEPS steps; its seconds a step and what it says of them."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    device = torch.device("cpu")
    defense = find.build(find.defense(find.shipped("baselines") / "dat.py"), {"gradients": gradients})
    model = MnistCnn().build((1, 28, 28), 10).train()
    draws = torch.Generator().manual_seed(rank)
    with joined(rank, world, device, meet) as group, fast(model, choose(TRAINING, device, model, lambda: 0)):
        noise = Stream(generator("cpu", 0, "attack"))
        noise.share(rank, world, group.rows(world * BATCH), world * BATCH)
        state = TrainState(model, defense.optimizer(model, TRAINING), Threat("Linf", 0.3), noise, group=group)
        defense.prepare(state)
        seconds: list[float] = []
        for _ in range(WARM + STEPS):
            x, y = torch.rand(BATCH, 1, 28, 28, generator=draws), torch.randint(10, (BATCH,), generator=draws)
            started = time.perf_counter()
            defense.step(state, x, y)
            seconds.append(time.perf_counter() - started)
        told = {name: float(value) for name, value in state.report.items()}
        if rank == 0:
            entries = sum(p.numel() for p in model.parameters())
            torch.save((statistics.median(seconds[WARM:]), told, entries), out)
        os._exit(0)  # inside the group, as a rank of the suite ends: gloo has been seen to abort while it was left


def run(world: int, gradients: str) -> tuple[float, dict[str, float], int]:
    """Seconds a step, the history's numbers of the last step, and the network's weights."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.pt"
        spawn(work, (world, gradients, f"file://{folder}/meet", str(out)), nprocs=world)
        return torch.load(out, weights_only=True)


def main() -> None:
    """Print the table."""
    speed: dict[tuple[int, str], list[float]] = {}
    for turn in range(TURNS):
        for world, gradients in ((1, "none"), (2, "none"), (2, "bf16"), (2, "int8")):
            seconds, told, _ = run(world, gradients)
            speed.setdefault((world, gradients), []).append(world * BATCH / seconds)
            parts = ", ".join(f"{name.removesuffix('_seconds')} {told[name]:.3f} s" for name in told if "sec" in name)
            print(f"turn {turn}: {world} x {gradients:<4}: {world * BATCH / seconds:7.0f} images/s; {parts}")
    one = statistics.median(speed[1, "none"])
    for (world, gradients), rates in speed.items():
        print(f"{world} x {gradients:<4}: {statistics.median(rates) / one:.2f}x the images a second of one process")
    for world in (2, 4):
        _, told, entries = run(world, "int8")
        ring = 2 * (world - 1) / world * 4 * entries
        print(
            f"int8 at {world}: {told['bytes_sent']:,.0f} bytes a step, {told['bytes_sent'] / ring:.1%} of fp32's ring"
        )


if __name__ == "__main__":
    sys.exit(main())
