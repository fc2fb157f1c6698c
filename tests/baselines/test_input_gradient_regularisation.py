"""input-gradient-regularisation: a step against the double backward pass of a two-layer network written by hand."""

from __future__ import annotations

from functools import partial
from typing import Any

import one_step
import pytest
import torch
from one_step import Attention, state_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot, softplus

from advbench import find
from advbench.passes import counting
from advbench.precision import Engine, fast
from advbench.spec import BadInput

defense = partial(one_step.defense, "input-gradient-regularisation")


def network(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    inner: list[nn.Module] = [nn.BatchNorm1d(12)] if norm else []
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *inner, nn.Softplus(), nn.Linear(12, 3)).double()


@pytest.fixture
def batch(blobs) -> tuple[Tensor, Tensor]:
    data = blobs(24)
    return data.pixels(slice(None)).double(), data.labels


def by_hand(model: Any, x: Tensor, y: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The objective and its penalty: the input gradient is W1' (s' * W2' (p - onehot)), without autograd."""
    first, second = model[1], model[-1]
    hidden = x.flatten(1) @ first.weight.T + first.bias
    logits = softplus(hidden) @ second.weight.T + second.bias
    wrong = logits.softmax(1) - one_hot(y, 3)
    gradient = ((wrong @ second.weight) * hidden.sigmoid()) @ first.weight
    penalty = gradient.square().sum(1).mean()
    return cross_entropy(logits, y) + weight * penalty, penalty


@pytest.mark.parametrize("weight", [0.3, 40.0])
def test_a_step_is_that_of_the_formula(batch, weight):
    x, y = batch
    model, reference = network(), network()
    state = state_of(model)

    value = defense(weight=weight).step(state, x, y)

    expected, penalty = by_hand(reference, x, y, weight)
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)  # a sum in float32
    assert float(state.report["slope"]) == pytest.approx(penalty.item(), rel=1e-12)
    for weights, old, gradient in zip(model.parameters(), reference.parameters(), gradients, strict=True):
        torch.testing.assert_close(weights, old - 0.1 * gradient, rtol=1e-10, atol=1e-12)


def test_the_penalty_pulls_the_slope_down(batch):
    slopes = {}
    for weight in (0.0, 5.0):
        state = state_of(network())
        for _ in range(40):
            defense(weight=weight).step(state, *batch)
        slopes[weight] = float(state.report["slope"])

    assert slopes[5.0] < slopes[0.0] / 2


def test_without_a_weight_it_is_standard_training_with_smoothing_too(batch):
    standard = find.defense(find.shipped("baselines") / "standard.py")()
    models = [network(norm=True) for _ in range(2)]

    for made, model in zip((defense(weight=0.0), standard), models, strict=True):
        state = state_of(model, smoothing=0.2)
        for _ in range(3):
            made.step(state, *batch)
        assert state.smoothed

    for mine, theirs in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


def test_label_smoothing_leaves_the_penalty_alone(batch):
    x, y = batch
    model, state = network(), state_of(network(), smoothing=0.2)
    state.model = model

    loss = defense(weight=2.0).loss(state, x, y)

    smooth = cross_entropy(model(x), y, label_smoothing=0.2)
    assert loss.item() == pytest.approx((smooth + 2 * by_hand(model, x, y, 2.0)[1]).item(), rel=1e-12)


def test_what_it_costs_and_what_it_leaves(batch):
    x, y = batch
    model, made = network(norm=True), defense()
    model.append(nn.Linear(3, 3).double().requires_grad_(False))  # a part that is not trained

    with counting(model) as passes:
        loss = made.loss(state_of(model), x, y)
        assert all(weight.grad is None for weight in model.parameters())
        loss.backward()

    assert (passes.forward / len(x), passes.backward / len(x)) == made.passes() == (1, 2)
    assert all((weight.grad is None) != weight.requires_grad for weight in model.parameters())
    assert not x.requires_grad
    assert model.get_buffer("2.num_batches_tracked") == 1


def test_attention_and_fast_formats_are_differentiated_twice_exactly(batch):
    x, y = batch
    torch.manual_seed(0)
    model = Attention()
    expected = defense(weight=3.0).loss(state_of(model), x.float(), y)

    with fast(model, Engine("bf16")):
        found = defense(weight=3.0).loss(state_of(model), x.float(), y)
    found.backward()

    assert torch.equal(found, expected)
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in model.parameters())


@pytest.mark.parametrize("weight", [-1, "much"])
def test_what_it_refuses(weight: Any):
    with pytest.raises(BadInput, match=r"^weight: should be") as caught:
        defense(weight=weight)

    assert len(caught.value.lines) == 1
