"""Gradients that are kept and given again, and what PGD does where one is no number."""

from __future__ import annotations

import pytest
import torch
from peers import noise
from torch import Tensor, nn

from advbench.attacks.pgd import PGD, input_gradient, recording, replaying
from advbench.threat import Threat

LINF = Threat("Linf", 0.1)
Y = torch.zeros(4, dtype=torch.int64)


class Plane(nn.Module):
    """Two logits, +-<w, x>."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = torch.tensor(w, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        height = x @ self.w
        return torch.stack([height, -height], 1)


def middle() -> Tensor:
    return torch.full((4, 3), 0.5)


def test_kept_gradients_lead_other_weights_to_the_same_examples():
    one, other, x, attack = Plane(1, -2, 3), Plane(-1, 2, -3), middle(), PGD(steps=3)
    kept: list[Tensor] = []
    with recording(kept):
        found = attack.run(one, x, Y, LINF, noise(4))
    alone = attack.run(other, x, Y, LINF, noise(4))
    with replaying(kept):
        again = attack.run(other, x, Y, LINF, noise(4))

    assert torch.equal(again, found)
    assert not torch.equal(alone, found)
    assert len(kept) == 3


def test_outside_gradients_are_neither_kept_nor_given_even_after_an_error():
    model, kept = Plane(1, -2, 3), list[Tensor]()
    for inside in (recording(kept), replaying([torch.ones(4, 3)])):
        with pytest.raises(ZeroDivisionError), inside:
            raise ZeroDivisionError

    gradient = input_gradient(model, middle(), Y)

    assert kept == []
    assert torch.equal(gradient.sign(), torch.tensor([-1.0, 1, -1]).expand(4, 3))


def test_a_kept_gradient_is_no_longer_the_attack_s():
    kept: list[Tensor] = []
    with recording(kept):
        gradient = input_gradient(Plane(1, -2, 3), middle(), Y)
    gradient.zero_()

    assert (kept[0] != 0).all()


def test_an_attack_that_takes_more_gradients_than_were_kept_is_told():
    with replaying([torch.ones(4, 3)]), pytest.raises(RuntimeError, match="their attack takes more gradients"):
        PGD(steps=2).run(Plane(1, -2, 3), middle(), Y, LINF, noise(4))


def test_whose_gradient_is_no_number_stays_at_its_start_and_leaves_the_others_alone():
    class Torn(Plane):
        """The gradient of a bright first pixel is NaN, in the first pixel alone."""

        def forward(self, x: Tensor) -> Tensor:
            first = x[:, :1]
            # The slope of 0 * sqrt at 0 is 0 * inf.
            tear = 0 * torch.where(first > 0.7, first - first.detach(), 1).sqrt()
            return super().forward(torch.cat([first + tear, x[:, 1:]], 1))

    x = middle()
    x[2, 0] = 0.95
    attack = PGD(steps=3)
    ball = Threat("L2", 0.1)
    assert input_gradient(Torn(1, -2, 3), x, Y).isnan().nonzero().tolist() == [[2, 0]]
    found = attack.run(Torn(1, -2, 3), x, Y, ball, noise(4))
    whole = attack.run(Plane(1, -2, 3), x, Y, ball, noise(4))

    assert torch.equal(found[2], ball.random_start(x, noise(4))[2])
    kept = [0, 1, 3]
    assert torch.equal(found[kept], whole[kept])
