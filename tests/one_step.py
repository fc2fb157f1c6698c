"""What the tests of single defenses share: a small network in float64, its state, and gradients by autograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from advbench import find
from advbench.defense import Defense, TrainState
from advbench.passes import counting
from advbench.seeds import Stream, generator
from advbench.threat import Threat

EPS, LR = 0.1, 0.1
Net = Callable[[Tensor], Tensor]


def defense(name: str, **fields: Any) -> Defense:
    """The baseline of that name."""
    folder = find.shipped("baselines")
    return find.defended(find.defense(folder / f"{name.replace('-', '_')}.py"), fields, folder)


def network(*, norm: bool = False, scale: float = 3) -> nn.Sequential:
    """Of 8x8 images and 3 classes; smooth, and bent enough that gradients differ from point to point."""
    torch.manual_seed(0)
    inner: list[nn.Module] = [nn.BatchNorm2d(4)] if norm else []
    head = nn.Flatten(), nn.Linear(144, 16), nn.GELU(), nn.Linear(16, 3)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *inner, nn.Softplus(), *head).double()
    with torch.no_grad():
        for weight in model.parameters():
            weight *= scale
    return model


def small_network() -> nn.Sequential:
    """For the same images, with batch norm and torch's own weights; no two layers of equal length."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(36, 3)
    ).double()


class Attention(nn.Module):
    """One head over the rows of an image, whose fused kernels cannot be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(scaled_dot_product_attention(*self.into(x).chunk(3, dim=-1)).mean((1, 2)))


def noise() -> Stream:
    """The numbers that the defense of a fresh `state_of` draws."""
    return Stream(generator("cpu", 7))


def state_of(model: nn.Module, threat: Threat | None = None, *, lr: float = LR, **fields: Any) -> TrainState:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return TrainState(model.train(), optimizer, threat or Threat("Linf", EPS), noise(), **fields)


def slope(net: Net, x: Tensor, y: Tensor, *, graph: bool = False) -> Tensor:
    """Of the summed cross-entropy to x; differentiable in the weights with `graph`."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(net(x), y, reduction="sum"), x, create_graph=graph)[0]


def gradients(loss: Tensor, model: nn.Module) -> Tensor:
    """To all weights, in one vector."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> bool:
    return bool((found - expected).norm() <= tolerance * expected.norm())


def same_loss(made: Defense, state: TrainState, x: Tensor, y: Tensor, expected: Tensor) -> bool:
    """Whether value and gradient of the defense's loss are those of `expected`, and its passes those it declares."""
    with counting(state.model) as passes:
        found = made.loss(state, x, y)
        gradient = gradients(found, state.model)
    assert (passes.forward / len(x), passes.backward / len(x)) == made.passes()
    return close(found.detach(), expected.detach()) and close(gradient, gradients(expected, state.model))
