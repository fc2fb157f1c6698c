"""What curvature costs here, beside PyHessian and beside power iteration.

    python tests/benchmarks/curvature.py TASK JOB RESULTS [--examples 1000] [--threads 1] [--data-root data] [--turns 3]
    python tests/benchmarks/curvature.py TASK JOB RESULTS --weights --examples 64 --top 2 --steps 40 --reference 1e-5

takes the best weights of a job that `advbench run` has left in RESULTS. PyHessian (pip install --no-deps pyhessian)
gives the top eigenvalues of the clean loss in the weights at its own tolerance; the reference is Lanczos run to 1e-8.
Ours is run at falling tolerances: the first whose error is at most PyHessian's is the one at equal accuracy. In the
pixels, the exact spectrum of every example stands beside a backward pass (a forward pass and the gradient in the
pixels, no weights), and beside power iteration for the top eigenvalue alone, on all examples at once, until the value
of the median example, or of every one, changes by less than 1e-3 a step (PyHessian's rule; at most 100 steps). CPU
seconds, the best of some turns taken in turn. With --weights the pixels are left out, for a network in which a product
takes seconds: a ResNet-18, say. Which tolerance is at equal accuracy is found from products that are made once.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from parity import asking, load
from torch import Tensor, nn

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import Scene
from advbench.collectors.input_spectrum import factor, products
from advbench.collectors.lanczos import lanczos
from advbench.collectors.weight_products import WeightHessian

TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and the result."""
    started = time.process_time()
    found = work()
    return time.process_time() - started, found


def pyhessian(model: nn.Module, x: Tensor, y: Tensor, top: int, seed: int) -> tuple[list[float], int]:
    """Its top eigenvalues of the mean cross-entropy, and how many products it took."""
    # By its full name: the package has a class of the module's name.
    theirs: Any = importlib.import_module("pyhessian.hessian")

    count, plain = 0, theirs.hessian_vector_product

    def counted(*args: Any) -> Any:
        nonlocal count
        count += 1
        return plain(*args)

    theirs.hessian_vector_product = counted
    torch.manual_seed(seed)
    try:
        made = theirs.hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=False)
        return made.eigenvalues(top_n=top)[0], count
    finally:
        theirs.hessian_vector_product = plain
        model.zero_grad()


class Replayed:
    """A Hessian whose products are made once: Lanczos from the same start asks for the same ones first."""

    def __init__(self, hessian: WeightHessian) -> None:
        self.hessian, self.size, self.products = hessian, hessian.size, 0
        self.kept: list[Tensor] = []

    def __call__(self, vector: Tensor) -> Tensor:
        self.products += 1
        if self.products > len(self.kept):
            self.kept.append(self.hessian(vector))
        return self.kept[self.products - 1]


def ours(
    hessian: WeightHessian | Replayed, top: int, tolerance: float, seed: int, steps: int
) -> tuple[list[float], int]:
    """The same of Lanczos."""
    hessian.products = 0
    start = torch.randn(1, hessian.size, generator=torch.Generator().manual_seed(seed))
    found = lanczos(hessian, start, steps=steps, top=top, tolerance=tolerance)
    return found.values[0, :top].tolist(), hessian.products


def off(found: list[float], reference: list[float]) -> float:
    """The largest error, as a share of the largest eigenvalue; both in falling order."""
    return max(abs(a - b) for a, b in zip(sorted(found, reverse=True), reference, strict=True)) / abs(reference[0])


def weights(model: nn.Module, scene: Scene, top: int, turns: int, steps: int, tolerance: float) -> None:
    """Products and seconds at equal accuracy; the reference is Lanczos run to `tolerance`."""
    reference, count = ours(WeightHessian(scene, "clean"), top, tolerance, 99, steps)
    print("reference", [round(value, 4) for value in reference], f"{count} products", flush=True)
    for seed in range(turns):
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        their_seconds, (theirs, their_count) = timed(lambda seed=seed: pyhessian(model, scene.x, scene.y, top, seed))
        model.requires_grad_(False)
        error = off(theirs, reference)
        said = f"{their_count:4d} products {their_seconds:7.2f} CPU s  error {error:.2g}"
        print(f"turn {seed} PyHessian         {said}", flush=True)
        again = Replayed(WeightHessian(scene, "clean"))
        enough = (t for t in TOLERANCES if off(ours(again, top, t, seed, steps)[0], reference) <= error)
        for name, asked in (("equal accuracy", next(enough, TOLERANCES[-1])), ("default", 1e-3)):
            seconds, (found, count) = timed(
                lambda asked=asked, seed=seed: ours(WeightHessian(scene, "clean"), top, asked, seed, steps)
            )
            print(
                f"turn {seed} ours, {name:<14}{count:3d} products {seconds:7.2f} CPU s"
                f"  error {off(found, reference):.2g}"
                f"  {their_count / count:.1f}x fewer, {their_seconds / seconds:.1f}x less time",
                flush=True,
            )


def power(model: nn.Module, x: Tensor, y: Tensor, share: float) -> tuple[Tensor, int]:
    """The top eigenvalue of every example's Hessian, and the iterations until that `share` of them was known."""
    multiply = products(model, x, y)
    vector = torch.randn(x.flatten(1).shape, generator=torch.Generator().manual_seed(0)).to(x)
    before = torch.zeros(len(x), dtype=x.dtype)
    for step in range(1, 101):
        vector = vector / vector.norm(dim=1, keepdim=True).clamp_min(1e-30)
        product = multiply(vector)
        value = (vector * product).sum(1)
        if float(((value - before).abs() / (value.abs() + 1e-12)).quantile(share)) < 1e-3:
            return value, step
        before, vector = value, product
    return before, 100


def pixels(model: nn.Module, x: Tensor, y: Tensor, turns: int, batch: int) -> None:
    """The exact spectrum, a backward pass, and power iteration."""
    chunks = torch.arange(len(x)).split(batch)
    kinds: dict[str, Callable[[], Any]] = {
        "backward pass": lambda: [input_gradient(model, x[rows], y[rows]) for rows in chunks],
        "exact spectrum": lambda: torch.cat([factor(model, x[rows], y[rows]).values for rows in chunks]),
        "power, median": lambda: [power(model, x[rows], y[rows], 0.5) for rows in chunks],
        "power, every": lambda: [power(model, x[rows], y[rows], 1.0) for rows in chunks],
    }
    seconds = {name: [timed(work)[0] for _ in range(turns)] for name, work in kinds.items()}
    best = {name: min(values) for name, values in seconds.items()}
    print({name: f"{value:.3f} s" for name, value in best.items()})
    print(f"exact spectrum: {best['exact spectrum'] / best['backward pass']:.1f} backward passes")
    exact = kinds["exact spectrum"]()[:, 0]
    for name in ("power, median", "power, every"):
        run = kinds[name]()
        errors = (torch.cat([value for value, _ in run]) - exact).abs() / exact.clamp_min(1e-12)
        print(
            f"{name}: {best[name] / best['exact spectrum']:.1f}x as long for the top value alone, "
            f"{max(count for _, count in run)} steps, error median {float(errors.median()):.1g} "
            f"worst {float(errors.max()):.1g}"
        )


def main() -> None:
    """Print both comparisons."""
    parser = asking(__doc__, examples=1000)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=200, help="most products of a run")
    parser.add_argument("--reference", type=float, default=1e-8, help="its tolerance")
    parser.add_argument("--weights", action="store_true", help="the weights alone")
    asked = parser.parse_args()
    loaded = load(asked)
    model = loaded.model.eval().requires_grad_(False)
    x, y = loaded.test.pixels(slice(None)), loaded.test.labels
    if not asked.weights:
        pixels(model, x, y, asked.turns, asked.batch)
    scene = Scene(model, x, y, loaded.threat, loaded.classes, batch=asked.batch)
    weights(model, scene, asked.top, asked.turns, asked.steps, asked.reference)


if __name__ == "__main__":
    sys.exit(main())
