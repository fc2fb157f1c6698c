"""Does SST see through a masked gradient, and is it the noise? `python tests/benchmarks/sst.py [--seeds 5]`.

The target is an MLP on round(8x)/8, whose input gradient is zero almost everywhere, trained on digits; eps is 0.07 in
Linf. For each seed (of the target and of the attacks): accuracy under white-box PGD-20, under distillation without
noise, under SST, and under PGD that takes the rounding for the identity (BPDA), which is what a perfect substitute
could do; and CPU seconds of the SST. Required: PGD less SST at least 0.4, distillation less SST at least 0.03, 60 s.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.attacks.sst import SST
from advbench.data.base import Examples
from advbench.data.digits import Digits
from advbench.data.subsets import choose
from advbench.losses import cross_entropy
from advbench.models.mlp import Mlp
from advbench.seeds import BlockNoise
from advbench.task import Data
from advbench.threat import Threat

THREAT = Threat("Linf", 0.07)


class Rounded(nn.Module):
    """A network on round(8x)/8; `through` lets the gradient pass as if nothing were rounded."""

    def __init__(self, inside: nn.Module, *, through: bool = False) -> None:
        super().__init__()
        self.inside, self.through = inside, through

    def forward(self, x: Tensor) -> Tensor:
        rounded = (8 * x).round() / 8
        return self.inside(x + (rounded - x).detach() if self.through else rounded)


def target(train: Examples, seed: int, epochs: int = 30) -> Rounded:
    """Trained by Adam on clean digits, in eval mode and frozen."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = Rounded(Mlp().build((1, 8, 8), 10))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                cross_entropy(model(train.pixels(rows)), train.labels[rows]).mean().backward()
                optimizer.step()
    return model.eval().requires_grad_(False)


def accuracy(model: nn.Module, test: Examples, attack: Attack, seed: int, on: nn.Module | None = None) -> float:
    """Of `model` on what the attack finds for it, or with the gradients of another one."""
    x, y = test.pixels(slice(None)), test.labels
    noise = BlockNoise(x.device, seed, len(x), torch.arange(len(x)))
    candidates = attack.run(on or model, x, y, THREAT, noise)
    assert THREAT.contains(candidates, x).all()
    return float((model(candidates).argmax(1) == y).float().mean())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=5)
    seeds = options.parse_args().seeds
    data = choose(Digits().load(Path()), Data(name="digits"), "cpu")
    rows: list[list[float]] = []
    print(f"{'seed':>4} {'PGD-20':>8} {'no noise':>9} {'SST':>7} {'BPDA':>7} {'SST, s':>7}")
    for seed in range(seeds):
        model = target(data.train, seed)
        white = accuracy(model, data.test, PGD(), seed)
        distilled = accuracy(model, data.test, SST(noise=0), seed)
        started = time.process_time()
        sst = accuracy(model, data.test, SST(), seed)
        seconds = time.process_time() - started
        bpda = accuracy(model, data.test, PGD(), seed, on=Rounded(model.inside, through=True))
        rows.append([white, distilled, sst, bpda, seconds])
        print(f"{seed:>4} {white:>8.3f} {distilled:>9.3f} {sst:>7.3f} {bpda:>7.3f} {seconds:>7.1f}", flush=True)
    white, distilled, sst, bpda, seconds = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    print(f"mean {white:>8.3f} {distilled:>9.3f} {sst:>7.3f} {bpda:>7.3f} {seconds:>7.1f}")
    print(f"PGD - SST: least {min(r[0] - r[2] for r in rows):.3f}, mean {white - sst:.3f}; required 0.4")
    print(f"no noise - SST: least {min(r[1] - r[2] for r in rows):.3f}, mean {distilled - sst:.3f}; required 0.03")


if __name__ == "__main__":
    main()
