"""Does SST see through a masked gradient? And does it ask for nothing that it may not have?

The numbers of five seeds are printed by tests/benchmarks/sst.py; here is one seed, trained for less long and
in longer steps.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.pgd import PGD
from advbench.attacks.sst import SST
from advbench.data.base import Examples
from advbench.data.subsets import choose
from advbench.losses import cross_entropy
from advbench.models.mlp import Mlp
from advbench.passes import counting
from advbench.seeds import BlockNoise
from advbench.task import Data
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
SMALL = SST(epochs=3, width=4, hidden=8, steps=5)


def noise(n: int, seed: int = 0) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), seed, n, torch.arange(n))


class Rounded(nn.Module):
    """A network on round(8x)/8, whose input gradient is zero almost everywhere."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside((8 * x).round() / 8)


@pytest.fixture(scope="module")
def masked(digits) -> nn.Module:
    train = choose(digits, Data(name="digits"), "cpu").train
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Rounded(Mlp().build((1, 8, 8), 10))
        optimizer = torch.optim.Adam(model.parameters(), 2e-3)
        for _ in range(12):
            for rows in torch.randperm(len(train)).split(64):
                optimizer.zero_grad()
                cross_entropy(model(train.pixels(rows)), train.labels[rows]).mean().backward()
                optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.mark.slow
def test_it_breaks_a_target_without_a_gradient_and_the_noise_is_why(masked, digits_test):
    x, y, threat = digits_test.pixels(slice(None)), digits_test.labels, Threat("Linf", 0.07)

    def accuracy(attack: PGD | SST) -> float:
        found = attack.run(masked, x, y, threat, noise(len(x)))
        assert threat.contains(found, x).all()
        return float((masked(found).argmax(1) == y).float().mean())

    short = SST(epochs=30, width=16, lr=4e-3)
    white, distilled, sst = (accuracy(attack) for attack in (PGD(), short.model_copy(update={"noise": 0}), short))
    assert white - sst >= 0.4
    assert distilled - sst >= 0.03


@pytest.mark.parametrize("norm", NORMS)
def test_on_a_substitute_that_is_the_target_it_finds_the_best_point_of_a_hyperplane(monkeypatch, norm):
    class Plane(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            height = ((x - 0.5) * self.w).flatten(1).sum(1)
            return torch.stack([height, -height, height - 99], dim=1)

    model = Plane()
    monkeypatch.setattr(SST, "substitute", lambda self, model, x, seed: model)
    x = 0.45 + 0.1 * torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    threat = Threat(norm, {"Linf": 0.1, "L2": 0.3, "L1": 0.4}[norm])
    best = threat.farthest(x, -model.w.expand_as(x))

    found = SST().run(model, x, torch.zeros(6, dtype=torch.int64), threat, noise(6))

    gained, possible = (-((point - x) * model.w).flatten(1).sum(1) for point in (found, best))
    assert (gained <= possible + 1e-9).all()
    assert (gained >= (1 - 1e-3) * possible).all()


class Curious(nn.Module):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.ones(10, 12))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(x)
        return x.flatten(1) @ self.slope.T


def test_it_asks_for_answers_to_noisy_copies_and_for_nothing_else():
    x = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    model, labels = Curious(), torch.arange(40) % 10
    with counting(model) as passes:
        SMALL.run(model, x, labels, Threat("Linf", 0.1), noise(40))

    # One image to count the classes; then every image once an epoch, in two phases of three.
    assert (passes.forward, passes.backward) == (1 + 2 * 3 * 40, 0)
    assert all(((images >= 0) & (images <= 1)).all() for images in model.asked)
    # Levels of 0, 5, ..., 100 %: a batch lies within its own of the images.
    farthest = [float((images[:, None] - x[None]).abs().flatten(2).amax(2).amin(1).amax()) for images in model.asked]
    assert max(farthest) > 0.3
    assert min(farthest) < 0.2
    # Labels have no part in the training.
    one, other = (SMALL.substitute(Curious(), x, 5)(x) for _ in range(2))
    assert torch.equal(one, other)


def test_without_noise_it_asks_for_the_images_themselves():
    x = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    model = Curious()
    SST(noise=0, epochs=1, width=2, hidden=2).substitute(model, x, 0)

    assert all((images[:, None] == x[None]).flatten(2).all(2).any(1).all() for images in model.asked)


@pytest.mark.parametrize("norm", NORMS)
def test_its_seed_decides_and_no_global_stream_is_moved(masked, digits_test, norm):
    x, y, threat = digits_test.pixels(slice(0, 30)), digits_test.labels[:30], Threat(norm, 0.5)
    before, kept = torch.get_rng_state(), x.clone()
    one, again, other = (SMALL.run(masked, x, y, threat, noise(30, seed)) for seed in (1, 1, 2))

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(x, kept)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert threat.contains(one, x).all()
    assert not one.requires_grad


def test_the_ladder_gives_it_the_whole_block_and_counts_its_queries(judged, masked, digits_test):
    few = Examples(digits_test.stored[:60], digits_test.labels[:60], digits_test.index[:60], digits_test.peak)
    found, split = (
        judged(masked, few, [SMALL], Threat("Linf", 0.07), curve=[], alone=0, block=40, batch=batch)
        for batch in (500, 7)
    )

    assert found.broken_by == split.broken_by
    assert found.gradient_rungs == ()
    correct = found.ledger.broken_by != -2
    # In each of two blocks an image more, to count the classes; and for everyone the look, six epochs, the judgement.
    assert int(found.ledger.forward[correct].sum()) == 2 + int(correct.sum()) * (2 + 6 + 1)
    assert int(found.ledger.backward[correct].sum()) == int(correct.sum())


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (2, 1, 9)])
def test_images_of_any_shape_pass(shape):
    x = torch.rand(3, *shape)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 4)).requires_grad_(False)

    assert SMALL.run(model, x, torch.arange(3), Threat("L2", 0.1), noise(3)).shape == x.shape
    assert SMALL.run(model, x[:0], torch.arange(0), Threat("L2", 0.1), noise(0)).shape == (0, *shape)
