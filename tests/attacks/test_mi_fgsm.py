"""MI-FGSM: by hand, against another implementation, and where the best point is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.mi_fgsm import MIFGSM
from advbench.attacks.pgd import ascend, input_gradient
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
RADII = {"Linf": 0.1, "L2": 0.3, "L1": 0.4}


def noise(n: int) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), 0, n, torch.arange(n))


def middle(*shape: int) -> Tensor:
    """Examples far enough from the box that it does not bind."""
    return 0.45 + 0.1 * torch.rand(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


class Planes(nn.Module):
    def __init__(self, classes: int = 2, size: int = 12) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(classes)
        self.weight = torch.randn(classes, size, generator=source, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) - 0.5) @ self.weight.T


def net() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 3)
    return nn.Sequential(*layers).double().requires_grad_(False)


@pytest.mark.parametrize("steps", [1, 10, 7])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("shape", [(8, 12), (8, 3, 2, 2)])
def test_it_finds_the_best_point_of_a_hyperplane(norm, shape, steps):
    # The gradient never turns, so steps of eps / steps end at the farthest point: no step is lost.
    x, model, threat = middle(*shape), Planes(), Threat(norm, RADII[norm])
    w = (model.weight[1] - model.weight[0]).view(shape[1:]).expand(shape)

    found = MIFGSM(steps=steps).run(model, x, torch.zeros(8, dtype=torch.int64), threat, noise(8))

    torch.testing.assert_close(found, threat.farthest(x, w), rtol=0, atol=1e-12)


def test_the_momentum_adds_up_gradients_of_one_norm():
    """Two steps by hand: g1 = a / |a|, g2 = mu g1 + b / |b|."""
    x, y, model, threat = middle(5, 12), torch.arange(5) % 3, net(), Threat("L2", 0.2)
    a = input_gradient(model, x, y)
    first = a / a.abs().sum(1, keepdim=True)
    one = x + 0.05 * first / first.norm(dim=1, keepdim=True)
    b = input_gradient(model, one, y)
    second = 0.6 * first + b / b.abs().sum(1, keepdim=True)
    two = one + 0.05 * second / second.norm(dim=1, keepdim=True)

    found = MIFGSM(steps=2, step_size=0.25, momentum=0.6).run(model, x, y, threat, noise(5))

    torch.testing.assert_close(found, two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_without_momentum_it_is_pgd_from_the_example(norm):
    x, y, model, threat = middle(6, 12), torch.arange(6) % 3, net(), Threat(norm, RADII[norm])

    found = MIFGSM(momentum=0.0).run(model, x, y, threat, noise(6))

    expected = ascend(model, x, y, threat, start=x, steps=10, step_size=threat.eps / 10)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_it_is_the_mi_fgsm_of_torchattacks():
    reference = pytest.importorskip("torchattacks", reason="compares with torchattacks, which is not installed")
    x, y, model = middle(9, 3, 2, 2), torch.arange(9) % 3, net()

    theirs = reference.MIFGSM(model, eps=0.3, alpha=0.03, steps=10, decay=1.0)(x, y)
    ours = MIFGSM().run(model, x, y, Threat("Linf", 0.3), noise(9))

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_candidates_are_allowed_and_no_gradient_is_no_step(norm):
    x = torch.rand(50, 12, generator=torch.Generator().manual_seed(1)).mul(2).sub(0.5).clamp(0, 1)
    threat = Threat(norm, RADII[norm])
    flat = nn.Sequential(nn.Flatten(), nn.Threshold(9.0, 0.5), nn.Linear(12, 3)).requires_grad_(False)

    found = MIFGSM().run(net().float(), x, torch.arange(50) % 3, threat, noise(50))

    assert threat.contains(found, x).all()
    assert torch.equal(MIFGSM().run(flat, x, torch.arange(50) % 3, threat, noise(50)), x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_larger_ball_breaks_no_less(digits_cnn, digits_test, norm):
    model, x, y = digits_cnn.eval().requires_grad_(False), digits_test.pixels(slice(0, 100)), digits_test.labels[:100]
    eps = {"Linf": 0.06, "L2": 0.3, "L1": 1.0}[norm]

    def broken(times: float) -> int:
        return int((model(MIFGSM().run(model, x, y, Threat(norm, times * eps), noise(100))).argmax(1) != y).sum())

    counts = [broken(times) for times in (0.01, 1, 2, 4)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[3]
