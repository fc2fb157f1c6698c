"""Does the outcome of FAB belong to the example, whoever else is attacked and whatever goes side by side?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.fab import FAB
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
EPS: dict[Norm, float] = {"Linf": 0.025, "L2": 0.15, "L1": 0.4}
"""Radii at which some examples fall and some do not."""


def noise(n: int, rows: Tensor | None = None) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), 0, n, torch.arange(n) if rows is None else rows)


def uniform(n: int) -> Tensor:
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(3))


def fell(model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    return (model(x_adv).argmax(1) != y) & threat.contains(x_adv, x)


class Rowwise(nn.Module):
    """A smooth model of six classes that works example by example: matrix products round by the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(1)
        self.into, self.out = torch.randn(8, 48, generator=source) / 7, torch.randn(6, 8, generator=source)
        # Two steep classes with little to start from: the runner-up is often not the nearest.
        self.out *= torch.tensor([0.2, 2.0, 0.2, 0.2, 2.0, 0.2])[:, None]
        self.bias = torch.tensor([0.0, -2.0, 0.0, 0.0, -2.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        hidden = ((x.flatten(1) - 0.5)[:, None] * self.into).sum(2).tanh()
        return (hidden[:, None] * self.out).sum(2) + self.bias


@pytest.mark.parametrize("how", [FAB(steps=12), FAB(steps=6, targets=0, starts=3), FAB(steps=5, targets=3, starts=2)])
@pytest.mark.parametrize("norm", NORMS)
def test_an_example_meets_the_same_attack_in_any_batch(norm, how):
    model, x = Rowwise(), uniform(24)
    y, n = model(x).argmax(1), 24
    threat = Threat(norm, EPS[norm])
    whole = how.run(model, x, y, threat, noise(n))
    broken = fell(model, whole, x, y, threat)
    assert 4 < broken.sum() < 22

    for together in (1, 1000):
        again = how.model_copy(update={"together": together}).run(model, x, y, threat, noise(n))
        assert torch.equal(again, whole)
    for rows in (torch.arange(7), torch.arange(n).flip(0), (~broken).nonzero().squeeze(1), torch.tensor([11])):
        assert torch.equal(how.run(model, x[rows], y[rows], threat, noise(n, rows)), whole[rows])


@pytest.mark.parametrize("norm", NORMS)
def test_targets_side_by_side_break_what_they_break_one_after_another(norm):
    model, x, how = Rowwise(), uniform(60), FAB(steps=12)
    logits = model(x)
    y, threat = logits.argmax(1), Threat(norm, EPS[norm])

    broken = fell(model, how.run(model, x, y, threat, noise(60)), x, y, threat)

    alone = torch.stack([how._race(model, x, y, aim[None], x[None], threat)[1] for aim in how._aims(logits, y)])
    assert len(alone) == 5
    assert torch.equal(broken, alone.any(0))
    assert (broken & ~alone[0]).any(), "some should fall to a later target only, or this says little"


@pytest.mark.parametrize(("n", "together", "most"), [(4, 64, 16), (4, 10, 8), (4, 1, 4), (24, 10, 24)])
def test_a_pass_holds_no_more_than_the_batch_or_than_asked_for(n, together, most):
    model, x, seen = Rowwise(), uniform(n), [0]
    model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))

    # At this radius nothing falls: four of five targets go side by side.
    FAB(steps=2, together=together).run(model, x, model(x).argmax(1), Threat("L2", 1e-6), noise(n))

    assert max(seen) == most


def test_without_memory_for_all_targets_fewer_go_side_by_side():
    class Small(Rowwise):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 7:
                raise torch.OutOfMemoryError("no memory")
            return super().forward(x)

    x, threat, how = uniform(60), Threat("L2", EPS["L2"]), FAB(steps=12)
    y = Rowwise()(x).argmax(1)
    whole = fell(Rowwise(), how.run(Rowwise(), x, y, threat, noise(60)), x, y, threat)

    for rows in torch.arange(60).split(7):
        x_adv = how.run(Small(), x[rows], y[rows], threat, noise(60, rows))
        assert torch.equal(fell(Rowwise(), x_adv, x[rows], y[rows], threat), whole[rows])
    with pytest.raises(torch.OutOfMemoryError):
        how.run(Small(), x, y, threat, noise(60))
