"""What the data take of a training step: `python tests/benchmarks/pipeline.py`.

A step is PGD-AT with 10 ascent steps on mnist-cnn, a batch of 128, one thread. The data's part is everything before
the defense gets its batch: rows by index, random crop and mirror, bytes to floats. Resident: from memory by index.
Streamed: from a memory map, gathered in a background thread. In CPU seconds of the whole process, so that what the
thread does is counted too, although on an accelerator it costs the step nothing. The two alternate; medians.
Target: under 3 %.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from advbench import find
from advbench.data.augment import crop_flip
from advbench.data.base import DataSet, Examples, Split
from advbench.data.subsets import choose
from advbench.defense import Defense, TrainState
from advbench.models.mnist_cnn import MnistCnn
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.task import Data
from advbench.threat import Threat

COUNT, BATCH, STEPS, REPEATS = 60_000, 128, 20, 11


def examples(folder: Path, *, mapped: bool) -> Examples:
    """As many random images as MNIST has; the time does not depend on what they show."""
    file = folder / "images.npy"
    if not file.exists():
        np.save(file, np.random.default_rng(0).integers(0, 256, (COUNT, 1, 28, 28), dtype=np.uint8))
    split = Split(np.load(file, mmap_mode="r" if mapped else None), np.arange(COUNT) % 10)
    return choose(DataSet(split, split, 10), Data(name="mnist"), "cpu").train


def data_seconds(data: Examples) -> float:
    """Of a batch, over an epoch."""
    order = torch.randperm(len(data))
    started = time.process_time()
    batches = 0
    for images, _ in data.batches(order.split(BATCH)):
        data.scaled(crop_flip(images, generator("cpu", 0, "augment", 0, batches)))
        batches += 1
    return (time.process_time() - started) / batches


def step_seconds(data: Examples, defense: Defense) -> float:
    """Of what the defense does with a batch."""
    torch.manual_seed(0)
    model = MnistCnn().build((1, 28, 28), 10)
    stream = Stream(generator("cpu", 0, "attack", 0))
    state = TrainState(model, defense.optimizer(model, Training(epochs=1)), Threat("Linf", 0.3), stream)
    x, y = data.pixels(torch.arange(BATCH)), data.labels[:BATCH]
    defense.step(state, x, y)  # the first of everything is slow
    started = time.process_time()
    for _ in range(STEPS):
        defense.step(state, x, y)
    return (time.process_time() - started) / STEPS


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    defense = find.defense(find.shipped("baselines") / "pgd_at.py")()
    with tempfile.TemporaryDirectory() as folder:
        kinds = {name: examples(Path(folder), mapped=name == "streamed") for name in ("resident", "streamed")}
        for data in kinds.values():
            data_seconds(data)
        rounds = [
            (step_seconds(kinds["resident"], defense), *(data_seconds(data) for data in kinds.values()))
            for _ in range(REPEATS)
        ]
    steps, *parts = zip(*rounds, strict=True)
    for name, part in zip(kinds, parts, strict=True):
        shares = sorted(p / (p + s) for p, s in zip(part, steps, strict=True))
        data, step = (1e3 * statistics.median(times) for times in (part, steps))
        spread = f"{shares[0]:.2%} to {shares[-1]:.2%}"
        print(f"{name} {statistics.median(shares):.2%} ({spread}): {data:.2f} ms beside {step:.1f} ms of PGD-AT")
    print("target: under 3 %")


if __name__ == "__main__":
    main()
