"""Example passes are counted whoever makes them, and however the gradient is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.pgd import PGD
from advbench.losses import cross_entropy
from advbench.passes import Passes, counting
from advbench.seeds import BlockNoise
from advbench.threat import Threat

X = torch.rand(6, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def test_backward_and_autograd_grad_count_alike(model):
    with counting(model) as to_weights:
        cross_entropy(model(X), Y).sum().backward()
    with counting(model) as to_input:
        x = X.clone().requires_grad_()
        torch.autograd.grad(cross_entropy(model(x), Y).sum(), x)

    assert to_weights == to_input == Passes(forward=6, backward=6)


def test_without_a_gradient_only_forward_counts(model):
    with counting(model) as passes:
        with torch.no_grad():
            model(X)
        model(X)

    assert passes == Passes(forward=12, backward=0)


def test_a_second_order_gradient_goes_back_twice(model):
    with counting(model) as passes:
        x = X.clone().requires_grad_()
        grad = torch.autograd.grad(cross_entropy(model(x), Y).sum(), x, create_graph=True)[0]
        grad.square().sum().backward()

    assert passes == Passes(forward=6, backward=12)


def test_two_losses_on_one_forward_pass_count_two_backward_passes(model):
    with counting(model) as passes:
        logits = model(X)
        logits[:, 0].sum().backward(retain_graph=True)
        logits[:, 1].sum().backward()

    assert passes == Passes(forward=6, backward=12)


def test_whoever_watches_sees_the_count_grow_and_what_went_forward(model):
    grown: list[tuple[int, int, int]] = []

    def watch(passes: Passes) -> None:
        assert passes.seen is not None
        assert not passes.seen.requires_grad
        grown.append((passes.forward, passes.backward, len(passes.seen)))

    with counting(model, watch) as passes:
        for x in (X[:2], X[2:].clone().requires_grad_()):
            model(x).sum().backward()

    assert grown == [(2, 0, 2), (6, 2, 4)]
    assert passes.seen is not None
    assert torch.equal(passes.seen, X[2:])


def test_an_attack_costs_what_it_says(model):
    noise = BlockNoise(torch.device("cpu"), 0, 6, torch.arange(6))
    with counting(model) as passes:
        PGD(steps=7).run(model, X, Y, Threat("Linf", 0.1), noise)

    assert passes == Passes(forward=42, backward=42)


def test_counting_ends_with_the_block_even_after_an_error(model):
    passes = Passes()

    def boom() -> Tensor:
        nonlocal passes
        with counting(model) as passes:
            model(X)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        boom()
    model(X)
    assert passes.forward == 6
    assert not model._forward_hooks
