"""What the suite's training loop costs beside a bare one: `python tests/benchmarks/overhead.py`.

Both train mnist-cnn on the same MNIST-shaped bytes for an epoch, by SGD with the same recipe: standard training, and
PGD-AT with 10 steps, in the same number format and memory layout (what those are worth, step.py tells). The bare loop
is what a person would write: no counting, no streams, no checkpoints.
Validation is left out on both sides, as a matter of the task and not of the loop. The two alternate; the ratio is the
median over pairs, in CPU seconds of the one thread, which other work on the machine disturbs least. Target: under 1.03.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench import find
from advbench import train as training_loop
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense
from advbench.models.mnist_cnn import MnistCnn
from advbench.plan import Job
from advbench.precision import choose, fast
from advbench.recipe import Training
from advbench.task import Data, Evaluation, ThreatModel

EPS, STEPS, BATCH, RATE = 0.3, 10, 128, 0.1


def examples(count: int) -> Examples:
    """Random bytes and labels: the time does not depend on what they show."""
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=source)
    return Examples(images, torch.randint(0, 10, (count,), generator=source), torch.arange(count), 255)


def network() -> nn.Module:
    """The same initial weights every time."""
    torch.manual_seed(0)
    return MnistCnn().build((1, 28, 28), 10)


def suite(data: Examples, defense: Defense) -> float:
    """Seconds of an epoch by advbench's loop."""
    job = Job(
        task="t", title="t", label="t", seed=0, data=Data(name="mnist"), data_sha256="", model={},
        threat=ThreatModel.model_validate({"norm": "Linf", "eps": EPS}), training=Training(epochs=1, batch=BATCH),
        evaluation=Evaluation(), defense={}, threads=1, accelerator=False,
    )  # fmt: skip
    model = network()
    nothing = {"clean": 0.0, "fgsm": 0.0, "pgd": 0.0, "top_class": 0.0}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(training_loop, "validate", return_value=nothing):
        started = time.process_time()
        training_loop.train(job, Subsets(data, data, data), defense, model, Path(folder) / "c.pt", lambda *_: None)
        return time.process_time() - started


def bare(data: Examples, attack: bool, count: int) -> float:
    """Seconds of an epoch by a plain loop."""
    model = network()
    engine = choose(Training(epochs=1), torch.device("cpu"), model, lambda: 0)
    with fast(model, engine):
        return _bare(model, data, attack, count)


def _bare(model: nn.Module, data: Examples, attack: bool, count: int) -> float:
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4, fused=True)
    steps = count // BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: 2 * s / steps if 2 * s < steps else 2 - 2 * s / steps
    )
    started = time.process_time()
    model.train()
    order = torch.randperm(count)
    total = 0.0
    for step in range(steps):
        rows = order[step * BATCH : (step + 1) * BATCH]
        x, y = data.stored[rows].float() / 255, data.labels[rows]
        loss = cross_entropy(model(pgd(model, x, y) if attack else x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += loss.item()
    return time.process_time() - started


def pgd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD as tutorials write it."""
    moved = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        moved = moved.detach().requires_grad_()
        [gradient] = torch.autograd.grad(cross_entropy(model(moved), y), moved)
        moved = moved.detach() + EPS / 4 * gradient.sign()
        moved = (x + (moved - x).clamp(-EPS, EPS)).clamp(0, 1)
    return moved.detach()


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    for name, count, repeats in (("standard", 128 * 200, 15), ("pgd-at", 128 * 60, 11)):
        data = examples(count)
        made = find.defense(find.shipped("baselines") / f"{name.replace('-', '_')}.py")()
        attack = name == "pgd-at"
        suite(data, made)  # the first of everything is slow
        bare(data, attack, count)
        pairs = [(suite(data, made), bare(data, attack, count)) for _ in range(repeats)]
        ratios = sorted(ours / theirs for ours, theirs in pairs)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        fastest = min(a for a, _ in pairs) / min(b for _, b in pairs)
        spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}; fastest against fastest {fastest:.3f}"
        print(f"{name:9} suite {ours:.2f} s, bare {theirs:.2f} s, ratio {statistics.median(ratios):.3f} ({spread})")
    print("target: under 1.03")


if __name__ == "__main__":
    main()
