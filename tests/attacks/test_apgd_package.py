"""Is APGD the authors' APGD? Their package draws the same numbers, and must go the same way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from pyautoattack import autopgd_base
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from torch import Tensor, nn

from advbench.attacks.apgd import APGD, Loss
from advbench.data.base import Examples
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
THREATS = {"Linf": Threat("Linf", 0.07), "L2": Threat("L2", 0.4), "L1": Threat("L1", 1.2)}
"""Radii at which the digits model is fooled on some examples and not on others."""


def noise(n: int, seed: int = 0) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), seed, n, torch.arange(n))


@pytest.fixture
def some(digits_cnn: nn.Module, digits_test: Examples) -> tuple[nn.Module, Tensor, Tensor]:
    """The frozen digits model with 24 digits that it reads right."""
    model = digits_cnn.eval().requires_grad_(False)
    x, y = digits_test.pixels(slice(0, 40)), digits_test.labels[:40]
    right = (model(x).argmax(1) == y).nonzero().squeeze(1)[:24]
    return model, x[right], y[right]


class Drawn(BlockNoise):
    """The package's draws: torch's global stream, for those that stand; in L1 it draws for every ball and uses one."""

    def __init__(self, norm: Norm) -> None:
        super().__init__(torch.device("cpu"), 0, 0, torch.arange(0))
        self.wasted = 3 if norm == "L1" else 0

    def some(self, kept: Tensor) -> BlockNoise:
        return self

    def uniform(self, x: Tensor) -> Tensor:
        return 2 * torch.rand(x.shape) - 1

    def normal(self, x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape)
        for _ in range(self.wasted):
            torch.randn(x.shape)
        return drawn


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """float64 for the package too, which casts what it gets to `float`: else rounding decides between trajectories."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor.double())
    yield
    torch.set_default_dtype(torch.float32)


def package(model: nn.Module, threat: Threat, loss: Loss, runs: int, seed: int = 0, steps: int = 100) -> APGDAttack:
    kind = APGDAttack_targeted if loss == "dlr-targeted" else APGDAttack
    made = kind(model, n_iter=steps, norm=threat.norm, eps=threat.eps, seed=seed, device="cpu")
    made.use_largereps = threat.norm == "L1"
    if loss == "dlr-targeted":
        made.n_target_classes = runs
    else:
        made.loss, made.n_restarts = loss, runs
    return made


@pytest.mark.filterwarnings("ignore:there are .* points with zero gradient")
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(
    ("norm", "loss"), [*((norm, loss) for norm in NORMS for loss in ("ce", "dlr-targeted")), ("Linf", "dlr")]
)
def test_with_the_package_s_draws_it_goes_where_the_package_goes(some, monkeypatch, norm, loss):
    model, x, y = some[0].double(), some[1].double(), some[2]
    theirs = package(model, THREATS[norm], loss, runs=2, steps=50)
    # It also counts pixels that only rounding has moved, by 1e-16.
    monkeypatch.setattr(autopgd_base, "L0_norm", lambda moved: (moved.abs() > 1e-12).flatten(1).sum(1))
    single = "decr_eps_pgd" if norm == "L1" else "attack_single_run"
    seen, run = [], getattr(theirs, single)
    monkeypatch.setattr(theirs, single, lambda *given: seen.append(run(*given)) or seen[-1])
    with torch.no_grad():
        fooled = model(theirs.perturb(x, y)).argmax(1) != y

    torch.manual_seed(0)
    candidates = APGD(loss=loss, steps=50, runs=2, together=1).run(model, x, y, THREATS[norm], Drawn(norm))

    assert torch.equal(model(candidates).argmax(1) != y, fooled)
    assert 3 <= fooled.sum() <= len(y) - 3, "some should fall and some stand, or this says little"
    # What stands was in both runs, the second time without those that the first one fooled.
    (points, stood, losses, _), (more_points, stood_again, more_losses, _) = seen
    points, losses = points[stood][stood_again], losses[stood][stood_again]
    higher = more_losses[stood_again] > losses
    best = torch.where(higher[:, None, None, None], more_points[stood_again], points)
    torch.testing.assert_close(candidates[~fooled], best, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("norm", "loss"), [("Linf", "ce"), ("L2", "dlr-targeted"), ("L1", "ce")])
def test_with_its_own_draws_it_fools_as_many_as_the_package(some, norm, loss):
    """Five steps, so that the start decides. Counts over K seeds: their means differ by no more than chance allows.

    Under one law the difference of the means has the variance (s1^2 + s2^2) / K, of the counts' own spread; a
    difference beyond three standard errors (and half an example, where the counts hardly spread) is another law.
    """
    model, x, y = some
    threat, seeds = THREATS[norm], range(10)

    def count(candidates: Tensor) -> float:
        return float((model(candidates).argmax(1) != y).sum())

    ours = [count(APGD(loss=loss, steps=5, runs=1).run(model, x, y, threat, noise(len(x), s))) for s in seeds]
    with torch.no_grad():
        theirs = [count(package(model, threat, loss, 1, s, steps=5).perturb(x, y)) for s in seeds]

    ours, theirs = torch.tensor(ours), torch.tensor(theirs)
    error = ((ours.var() + theirs.var()) / len(seeds)).sqrt()
    assert abs(ours.mean() - theirs.mean()) <= 3 * error + 0.5
    assert 3 <= theirs.mean() <= len(y) - 3
