"""Losses against float64 arithmetic written out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from advbench.losses import cross_entropy, dlr, margin, targeted_dlr

LOGITS = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 5
LABELS = torch.arange(40) % 7


def reference(row: list[float], label: int) -> float:
    top = max(row)
    return top + math.log(math.fsum(math.exp(v - top) for v in row)) - row[label]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cross_entropy_is_minus_log_softmax_of_each_example(dtype, tolerance):
    expected = [reference(row, label) for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)]

    found = cross_entropy(LOGITS.to(dtype), LABELS)

    assert found.tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_smoothing_shares_so_much_of_the_target_among_all_classes():
    each = torch.stack([cross_entropy(LOGITS, torch.full_like(LABELS, label)) for label in range(7)])
    expected = 0.7 * cross_entropy(LOGITS, LABELS) + 0.3 * each.mean(0)

    torch.testing.assert_close(cross_entropy(LOGITS, LABELS, 0.3), expected, rtol=1e-12, atol=0)


def test_cross_entropy_stays_finite_where_softmax_saturates():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])

    assert cross_entropy(logits, torch.tensor([0, 0])).tolist() == [0.0, 1000.0]


def test_margin_is_negative_exactly_where_the_prediction_is_wrong():
    found = margin(LOGITS, LABELS)

    for value, row, label in zip(found.tolist(), LOGITS.tolist(), LABELS.tolist(), strict=True):
        assert value == row[label] - max(v for i, v in enumerate(row) if i != label)
    assert torch.equal(found > 0, LOGITS.argmax(1) == LABELS)
    assert (found < 0).any()
    assert (found > 0).any()


def test_margin_does_not_write_into_the_logits():
    logits = LOGITS.clone()
    margin(logits, LABELS)

    assert torch.equal(logits, LOGITS)


def test_losses_of_a_non_finite_model_say_so():
    logits = torch.tensor([[math.nan, 0.0]])

    assert cross_entropy(logits, torch.tensor([1])).isnan().all()
    assert margin(logits, torch.tensor([1])).isnan().all()


def test_the_difference_of_logits_ratio_by_hand():
    logits = torch.tensor([[4.0, 1.0, 3.0, 0.0, 2.0], [4.0, 1.0, 3.0, 0.0, 2.0], [-1.0, -3.0, -2.0, -7.0, -5.0]])
    labels = torch.tensor([0, 2, 3])

    # (best other - own) / (best - third)
    assert dlr(logits, labels).tolist() == pytest.approx([(3 - 4) / 2, (4 - 3) / 2, (-1 + 7) / 2])
    # (target - own) / (best - mean of third and fourth)
    found = targeted_dlr(logits, labels, torch.tensor([3, 1, 0]))
    assert found.tolist() == pytest.approx([(0 - 4) / 2.5, (1 - 3) / 2.5, (-1 + 7) / 3])


def test_the_difference_of_logits_ratio_is_finite_where_the_best_classes_tie():
    logits, labels = torch.tensor([[2.0, 2.0, 2.0, 2.0, 1.0]], dtype=torch.float64), torch.tensor([4])

    # The authors' code adds 1e-12 to what it divides by.
    assert dlr(logits, labels).item() == pytest.approx(1e12)
    assert targeted_dlr(logits, labels, torch.tensor([1])).item() == pytest.approx(1e12)


def test_the_difference_of_logits_ratio_knows_no_scale_and_no_shift():
    targets = (LABELS + 3) % 7

    for scale, shift in ((1e-6, 0), (1e6, 0), (3, 100)):
        logits = scale * LOGITS + shift
        torch.testing.assert_close(dlr(logits, LABELS), dlr(LOGITS, LABELS), rtol=1e-5, atol=0)
        found, expected = (targeted_dlr(z, LABELS, targets) for z in (logits, LOGITS))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_the_difference_of_logits_ratio_is_positive_where_the_example_is_misclassified():
    assert torch.equal(dlr(LOGITS, LABELS) > 0, LOGITS.argmax(1) != LABELS)
    best = LOGITS.argmax(1)
    assert (targeted_dlr(LOGITS, LABELS, best)[best != LABELS] > 0).all()


@pytest.mark.parametrize("loss", [dlr, lambda z, y: targeted_dlr(z, y, (y + 1) % 7)])
def test_gradients_of_the_difference_of_logits_ratio_are_those_of_differences(loss):
    logits = LOGITS.clone().requires_grad_()

    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS), logits)
