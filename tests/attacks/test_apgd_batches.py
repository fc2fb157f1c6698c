"""How APGD's runs share a batch: as many as fit, fewer where memory is short, and none of it changes an outcome."""

from __future__ import annotations

import pytest
import torch
from peers import noise
from torch import Tensor, nn

from advbench.attacks.apgd import APGD
from advbench.threat import Threat

THREAT = Threat("L2", 0.12)


class Rowwise(nn.Module):
    """Six classes, each example summed for itself: a matrix product may round by the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.first, self.last = (torch.randn(shape, generator=source) for shape in ((16, 48), (6, 16)))
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, len(x))
        hidden = ((x.flatten(1)[:, None] - 0.5) * self.first / 3).sum(2).tanh()
        return (hidden[:, None] * self.last).sum(2)


class Small(Rowwise):
    """With memory for seven."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 7:
            raise torch.OutOfMemoryError("no memory")
        return super().forward(x)


def some(n: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    return x, Rowwise()(x).argmax(1)


@pytest.mark.parametrize(("n", "together", "most"), [(4, 64, 20), (4, 10, 8), (4, 1, 4), (24, 30, 24), (24, 48, 48)])
def test_a_pass_holds_no_more_than_the_batch_or_than_asked_for(n: int, together: int, most: int):
    (x, y), model = some(n), Rowwise()

    # At this radius nothing falls: as many of five targets as fit go side by side.
    APGD(loss="dlr-targeted", steps=2, together=together).run(model, x, y, Threat("L2", 1e-6), noise(n))

    assert model.most == most


@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_without_memory_for_all_runs_fewer_go_side_by_side(loss):
    (x, y), attack = some(28), APGD(loss=loss, steps=6, runs=5)
    whole = attack.run(Rowwise(), x, y, THREAT, noise(28))
    fell = Rowwise()(whole).argmax(1) != y
    assert 3 <= fell.sum() <= 25

    for rows in torch.arange(28).split(7)[:2]:
        found = attack.run(Small(), x[rows], y[rows], THREAT, noise(28, rows=rows))
        assert torch.equal(found, whole[rows])
    # Where nobody falls it is one run at a time, down to the last.
    four = x[:4], y[:4], Threat("L2", 1e-6)
    assert torch.equal(attack.run(Small(), *four, noise(4)), attack.run(Rowwise(), *four, noise(4)))
    with pytest.raises(torch.OutOfMemoryError):
        attack.run(Small(), x[:8], y[:8], Threat("L2", 1e-6), noise(8))


def test_of_runs_that_end_equally_high_the_first_is_kept():
    class Level(nn.Module):
        """Every step leads nowhere: the loss is the same at all points."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([9 + 0 * x.flatten(1).sum(1), *[0 * x.flatten(1).sum(1)] * 3], 1)

    x, y = some(3)[0], torch.zeros(3, dtype=torch.int64)
    first, side_by_side, in_turn = (
        APGD(steps=2, runs=runs, together=together).run(Level(), x, y, THREAT, noise(3))
        for runs, together in ((1, 1), (4, 64), (4, 1))
    )

    assert torch.equal(side_by_side, first)
    assert torch.equal(in_turn, first)
    assert not torch.equal(first, x)
