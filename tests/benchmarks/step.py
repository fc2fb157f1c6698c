"""A PGD-10 training step beside a plain one: `python tests/benchmarks/step.py [mnist-cnn] [preact-resnet18] ...`.

The plain step is what papers' code does: NCHW, fp32, `loss.backward()` inside the attack, which also computes the
weights' gradients and throws them away. Ours is the pgd-at baseline's own step, as the training loop runs it, in the
engine that the loop chooses here. Same batch, same batch norm mode, same recipe. The two alternate; figures are
medians, and the ratio is theirs. Targets: 1.5 on mnist-cnn, 2.2 on ResNet-18.
"""

from __future__ import annotations

import copy
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench import find
from advbench.defense import TrainState
from advbench.models.base import Model
from advbench.precision import choose, fast, proven
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.threat import Threat

BATCH = 128
SETTINGS = {
    "mnist-cnn": ((1, 28, 28), 0.3, 15),
    "preact-resnet18": ((3, 32, 32), 8 / 255, 3),
    "resnet18": ((3, 32, 32), 8 / 255, 3),
}
"""Image shape, eps, repeats."""


def plain(model: nn.Module, eps: float) -> Callable[[Tensor, Tensor], None]:
    """The step of papers' code."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step(x: Tensor, y: Tensor) -> None:
        delta = torch.empty_like(x).uniform_(-eps, eps)
        delta = (x + delta).clamp(0, 1) - x
        for _ in range(10):
            delta.requires_grad_()
            cross_entropy(model(x + delta), y).backward()
            assert delta.grad is not None
            delta = (delta.detach() + eps / 4 * delta.grad.sign()).clamp(-eps, eps)
            delta = (x + delta).clamp(0, 1) - x
        loss = cross_entropy(model(x + delta.detach()), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    """Measure and print."""
    # The jobs' default is one thread; OMP_NUM_THREADS changes it for both sides.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    defense = find.defense(find.shipped("baselines") / "pgd_at.py")()
    for name in sys.argv[1:] or ["mnist-cnn", "preact-resnet18"]:
        shape, eps, repeats = SETTINGS[name]
        torch.manual_seed(0)
        net = find.named(Model, {"name": name}).build(shape, 10).to(device)
        x, y = torch.rand(BATCH, *shape, device=device), torch.randint(10, (BATCH,), device=device)
        theirs = plain(copy.deepcopy(net).train(), eps)
        training = Training(epochs=1, lr=1e-3)
        # As in a long job, for which compiling pays where it is done at all.
        engine = proven(net, choose(training, device, net, lambda: 1e6), x, y)
        noise = Stream(generator(device, 0))
        state = TrainState(net.train(), defense.optimizer(net, training), Threat("Linf", eps), noise)
        times: dict[str, list[float]] = {"plain": [], "ours": []}
        for turn in range(repeats + 2):
            for side in times:
                started = time.perf_counter()
                if side == "plain":
                    theirs(x, y)
                else:
                    with fast(net, engine):
                        defense.step(state, x, y)
                next(net.parameters()).sum().item()  # reading a number waits for the device
                if turn > 1:  # the first of everything is slow
                    times[side].append(time.perf_counter() - started)
        slow, quick = (statistics.median(times[side]) for side in ("plain", "ours"))
        print(
            f"{name}: plain {slow * 1e3:.1f} ms, ours {quick * 1e3:.1f} ms, ratio {slow / quick:.2f}; {engine}",
            flush=True,
        )


if __name__ == "__main__":
    main()
