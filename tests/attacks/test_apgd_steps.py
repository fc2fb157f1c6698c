"""When APGD changes its step sizes and where it goes on from, against sequences worked out by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

from advbench.attacks import apgd
from advbench.attacks.apgd import APGD
from advbench.attacks.apgd_schedule import checkpoints, radii
from advbench.threat import Threat


def test_step_sizes_are_reconsidered_where_the_paper_says():
    assert checkpoints("Linf", 100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    # Section 3.3: p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), after ceil(p_j N) steps.
    for steps in (100, 200, 1000):
        before, share, expected = Fraction(0), Fraction(22, 100), []
        while share <= 1:
            expected.append(math.ceil(share * steps))
            before, share = share, share + max(share - before - Fraction(3, 100), Fraction(6, 100))
        assert list(checkpoints("L2", steps)) == expected
    assert checkpoints("Linf", 5) == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1}
    # No window is empty, and each is shorter than the one before by a step at least, as in the package.
    assert checkpoints("Linf", 10) == {2: 2, **dict.fromkeys(range(3, 11), 1)}
    # In L1 after every 4 %, which is every step of the 30 to 40 in one ball.
    assert checkpoints("L1", 40) == dict.fromkeys(range(1, 41), 1)
    assert checkpoints("L1", 100) == dict.fromkeys(range(4, 101, 4), 4)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(100, (30, 30, 40)), (25, (8, 8, 9)), (5, (2, 2, 1)), (3, (1, 1, 1)), (2, (1, 1, 0)), (1, (1, 0, 0))],
)
def test_in_l1_the_ball_shrinks_from_three_radii_to_one(steps, expected):
    assert radii("L1", steps) == [(3, expected[0]), (2, expected[1]), (1, expected[2])]
    assert radii("Linf", steps) == radii("L2", steps) == [(1, steps)]


def ascents(kind: type[apgd._Ascents], n: int, threat: Threat, pixels: int = 12) -> apgd._Ascents:
    """`n` ascents that have just begun at the middle of the box."""
    x, rows = torch.full((n, pixels), 0.5), torch.arange(n)
    made = kind(APGD(), nn.Flatten(), x, rows, rows, rows, rows)
    made.threat, made.project = threat, threat.projection(x)
    made._begin(x)
    return made


def test_a_step_size_is_halved_when_the_loss_rose_too_seldom_or_stands_where_it_stood():
    a = ascents(apgd._Ascents, 4, Threat("Linf", 0.1))
    where = torch.full((4, 12), 0.5)

    def window(steps: int, rises: list[int], height: list[float]) -> None:
        """So many rises above 0 in `steps` steps, whose highest loss is `height` at the last of the rises."""
        for i in range(steps):
            a.x_adv, a.grad = where + 0.001 * (i + 1), where * (i + 1)
            a.value = torch.zeros(4)
            a._note(
                torch.tensor(
                    [h if i == r - 1 else (h / 2 if i < r else 0.0) for r, h in zip(rises, height, strict=True)]
                )
            )
        a._reconsider(steps)

    # At most 16.5 rises of 22 are too few.
    window(22, [22, 17, 16, 3], [1.0, 1.0, 1.0, 1.0])
    assert a.halved.tolist() == [False, False, True, True]
    assert a.step.flatten().tolist() == pytest.approx([0.2, 0.2, 0.1, 0.1])
    # The halved go back to the best point and its gradient, the others on from where they are.
    best = [22, 22, 16, 3]
    torch.testing.assert_close(a.x_adv[:, 0], 0.5 + 0.001 * torch.tensor(best))
    torch.testing.assert_close(a.grad[:, 0], 0.5 * torch.tensor(best))
    # Rises enough, but no new height: halved, unless it was halved the last time.
    window(19, [19, 19, 19, 14], [2.0, 1.0, 1.0, 2.0])
    assert a.halved.tolist() == [False, True, False, True]
    assert a.step.flatten().tolist() == pytest.approx([0.2, 0.1, 0.1, 0.05])
    # A height that is only reached again is no better place to go on from.
    torch.testing.assert_close(a.x_adv[:, 0], 0.5 + 0.001 * torch.tensor([19, 17, 19, 14]))
    window(16, [16, 16, 16, 13], [2.0, 1.0, 1.0, 2.0])
    assert a.halved.tolist() == [True, False, True, False]
    assert a.step.flatten().tolist() == pytest.approx([0.1, 0.1, 0.05, 0.05])
    # 12 rises of 16 are just three quarters, and too few as well.
    window(16, [16, 12, 16, 13], [3.0, 3.0, 3.0, 3.0])
    assert a.halved.tolist() == [False, True, False, False]


def test_in_l1_a_step_is_shared_by_the_pixels_of_the_largest_gradients():
    a = ascents(apgd._SparseAscents, 3, Threat("L1", 0.6))
    a.grad = torch.tensor([[3.0, -5, 1, 4, 0, 2, -1, 1, 1, 1, 1, 1], [0.0] * 12, [1.0, *[0.5] * 10, -2]])
    a.share = torch.tensor([0.25, 0.25, 0.0])

    a._move(first=True)

    assert a.x_adv[0].tolist() == pytest.approx([0.7, 0.3, 0.5, 0.7, *[0.5] * 8])
    assert a.x_adv[1].tolist() == [0.5] * 12
    # Where the best point has moved no pixel, the steepest takes all of it, as far as the box lets it.
    assert a.x_adv[2].tolist() == pytest.approx([*[0.5] * 11, 0.0])


def test_in_l1_the_step_size_starts_anew_where_the_best_point_got_sparser():
    a = ascents(apgd._SparseAscents, 3, Threat("L1", 0.6))
    a.moved = torch.tensor([10.0, 4.0, 3.0])
    a.step = torch.tensor([[0.1], [0.3], [0.06]])
    a.best = a.x.clone()
    a.best[:, :4] += 0.1
    a.x_adv = a.x + 0.01

    a._reconsider(1)

    # 4 of 10 pixels: the whole radius again, from the best point. 4 of 4 and of 3: shorter, but never below a tenth.
    assert a.step.flatten().tolist() == pytest.approx([0.6, 0.2, 0.06])
    assert torch.equal(a.x_adv[0], a.best[0])
    assert torch.equal(a.x_adv[1:], a.x[1:] + 0.01)
    assert a.share.tolist() == pytest.approx([4 / 12 / 1.5] * 3)
