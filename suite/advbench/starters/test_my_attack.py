"""What an attack has to keep, where the right answer can be written down: on a model that is linear in the pixels."""

from __future__ import annotations

import pytest
import torch
from my_attack import MyAttack
from torch import Tensor, nn

from advbench.ledger import Ledger
from advbench.losses import margin
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

EPS = 0.1
ALL = torch.arange(64)
Y = ALL % 2


class Linear(nn.Module):
    """Two classes with logits -w.x/2 and w.x/2, so that the margin is w.x or -w.x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(0)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1) @ self.w / 2
        return torch.stack([-half, half], 1)


def images(low: float = 0.3, high: float = 0.7) -> Tensor:
    """By default farther than EPS from black and from white, so that the ball is whole."""
    return low + (high - low) * torch.rand(64, 1, 3, 4, generator=torch.Generator().manual_seed(1))


def candidates(x: Tensor, threat: Threat, rows: Tensor = ALL, seed: int = 0) -> Tensor:
    noise = BlockNoise(x.device, seed, len(x), rows)
    return MyAttack().run(Linear(), x[rows], Y[rows], threat, noise)


def test_the_margin_falls_by_the_most_that_a_linear_model_allows():
    model, x = Linear(), images()

    x_adv = candidates(x, Threat("Linf", EPS))

    lost = margin(model(x), Y) - margin(model(x_adv), Y)
    torch.testing.assert_close(lost, (EPS * model.w.abs().sum()).expand(64), rtol=1e-4, atol=0)


def test_the_ledger_finds_exactly_those_broken_that_can_be():
    model, x, threat = Linear(), images(), Threat("Linf", EPS)
    ledger = Ledger.open(x, Y, ALL)
    ledger.clean(model, ALL)

    broken = ledger.judge(model, threat, ledger.correct, candidates(x, threat, ledger.correct))

    breakable = ledger.margin[ledger.correct] < EPS * model.w.abs().sum()
    assert torch.equal(broken, breakable)
    assert 0 < int(broken.sum()) < len(broken), "some fall and some stand, or this shows nothing"


@pytest.mark.parametrize("norm", MyAttack.norms)
def test_candidates_lie_in_the_ball_and_in_the_box(norm: Norm):
    x, threat = images(0, 1), Threat(norm, EPS)

    x_adv = candidates(x, threat)

    assert threat.contains(x_adv, x).all()
    assert not torch.equal(x_adv, x)


def test_a_seed_is_a_result_whatever_the_batch():
    x, threat = images(), Threat("L2", EPS)
    whole, before = candidates(x, threat), torch.get_rng_state()

    assert torch.equal(candidates(x, threat), whole)
    assert not torch.equal(candidates(x, threat, seed=1), whole)
    torch.testing.assert_close(candidates(x, threat, ALL[5:9]), whole[5:9])
    assert torch.equal(torch.get_rng_state(), before), "numbers come from the noise alone"
