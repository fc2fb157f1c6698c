"""What a defense has to keep, where the right answer can be written down: on a model that is linear in the pixels."""

from __future__ import annotations

import torch
from my_defense import MyDefense
from torch import Tensor, nn
from torch.nn.functional import softplus

from advbench.defense import TrainState
from advbench.passes import counting
from advbench.seeds import Stream, generator
from advbench.threat import Threat

EPS = 0.1
Y = torch.arange(8) % 2


class Linear(nn.Module):
    """Two classes with logits -w.x/2 and w.x/2: the cross-entropy is softplus(-margin), the margin w.x or -w.x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        half = x.flatten(1) @ self.w / 2
        return torch.stack([-half, half], 1)


def images() -> Tensor:
    """Farther than EPS from black and from white, so that the ball is whole."""
    return 0.3 + 0.4 * torch.rand(8, 1, 3, 4, generator=torch.Generator().manual_seed(1))


def state(model: nn.Module) -> TrainState:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainState(model, optimizer, Threat("Linf", EPS), Stream(generator("cpu", 0)))


def test_the_loss_is_that_of_the_worst_images_in_the_ball():
    model, x = Linear(), images()

    loss = MyDefense().loss(state(model), x, Y)

    # No point of the ball takes more from the margin than eps * ||w||_1, and ten steps of eps/4 get there.
    margin = (2 * Y - 1) * (x.flatten(1) @ model.w)
    worst = softplus(EPS * model.w.abs().sum() - margin).mean()
    torch.testing.assert_close(loss, worst)


def test_it_costs_what_it_says():
    model = Linear()
    with counting(model) as passes:
        MyDefense().loss(state(model), images(), Y).backward()

    forward, backward = MyDefense().passes()
    assert (passes.forward, passes.backward) == (8 * forward, 8 * backward)


def test_the_attack_leaves_parameter_gradients_and_torch_s_own_random_numbers_alone():
    model, before = Linear(), torch.get_rng_state()
    model.w.grad = torch.full_like(model.w, 7.0)

    MyDefense().loss(state(model), images(), Y)

    assert (model.w.grad == 7.0).all()
    assert torch.equal(torch.get_rng_state(), before)
