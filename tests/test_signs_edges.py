"""Signs at the edges of what they mean: how often is looked, what counts as a probability, a gradient, a difference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advbench.signs import Connected, connected, signs


def images(count: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, 2, 2, generator=draw), torch.zeros(count, dtype=torch.int64)


def says(row: list[float]) -> Callable[[Tensor], Tensor]:
    """A model that answers every image alike."""
    return lambda x: torch.tensor(row).expand(len(x), -1)


def test_a_model_is_asked_14_times_at_the_most() -> None:
    asked: list[int] = []

    def model(x: Tensor) -> Tensor:
        asked.append(len(x))
        return x.flatten(1)

    signs(model, *images(10))

    # Once for its gradient; four times as it is, with a backward in two; eight images in pairs; in another order.
    assert asked == [10, *[10] * 4, *[2] * 8, 10]
    asked.clear()
    signs(model, *images(3))
    assert asked == [3, *[3] * 4, *[2] * 3, 3]


@pytest.mark.parametrize(
    ("row", "softmax"),
    [
        ([0.25, 0.75], True),
        ([0.0, 1.0], True),
        ([1.0, 0.0], True),
        ([0.5, 0.5009], True),
        ([0.5, 0.4991], True),
        ([0.5, 0.5011], False),
        ([0.5, 0.4989], False),
        ([1.5, -0.5], False),  # a sum of one
        ([0.6, 0.6], False),  # inside [0, 1]
        ([float("nan"), 1.0], False),
    ],
)
def test_probabilities_lie_in_0_to_1_and_have_a_sum_of_one_but_for_a_thousandth(
    row: list[float], softmax: bool
) -> None:
    assert signs(says(row), *images(4)).softmax is softmax


def test_where_nothing_is_right_no_share_of_the_right_ones_has_a_sign() -> None:
    x, y = images(4)
    seen = signs(says([1.0, 0.0]), x, y + 1)

    assert (seen.images, seen.correct, seen.saturated, seen.logits_flat) == (4, 0, 0, 0)
    seen = signs(says([1.0, 0.0]), x, y)
    assert (seen.correct, seen.saturated, seen.logits_flat) == (4, 1, 1)


def test_a_logit_that_is_not_finite_has_no_say_in_what_size_the_others_are() -> None:
    passes = 0

    def model(x: Tensor) -> Tensor:
        nonlocal passes
        passes += 1
        return torch.tensor([0.010 + 0.001 * (passes % 2), 0.0, torch.inf]).expand(len(x), -1)

    seen = signs(model, *images(4))
    assert seen.stochastic == pytest.approx(1 / 11)
    assert (seen.nonfinite, seen.changed) == (4, 0)


class Table(nn.Module):
    """Answers from its own weights, whatever the image."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.eye(2)[0])

    def forward(self, x: Tensor) -> Tensor:
        return self.rows + torch.zeros(len(x), 1)


class Elsewhere(nn.Module):
    """Goes through numpy, which refuses what asks for a gradient; and may refuse an image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().copy()).flatten(1)

    def reject(self, x: Tensor) -> Tensor:
        return x.flatten(1).sum(1)


@pytest.mark.parametrize("model", [Table(), Elsewhere()])
def test_a_model_that_is_cut_off_from_its_images_is_told_whatever_cut_it_off(model: nn.Module) -> None:
    x, y = images(4)
    joined = connected(model, x)

    assert isinstance(joined, Connected)
    assert joined.model is model
    assert torch.equal(joined(x), model(x))
    assert hasattr(joined, "reject") == hasattr(model, "reject")
    assert signs(model, x, y).disconnected
