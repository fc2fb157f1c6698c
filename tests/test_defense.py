"""What every defense gets from its base class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from advbench.defense import Defense, TrainState, batch_norm
from advbench.losses import cross_entropy
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.threat import Threat

X, Y = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1])


class Plain(Defense):
    name = "plain"
    paper = "none"
    weight: float = 1.0

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        return self.weight * cross_entropy(state.model(x), y).mean()


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2))


def state(model: nn.Module, optimizer: torch.optim.Optimizer) -> TrainState:
    return TrainState(model, optimizer, Threat("Linf", 0.1), Stream(generator("cpu", 0)))


@pytest.mark.parametrize(("mode", "inside"), [("train", True), ("eval", False)])
def test_batch_norm_holds_while_crafting_and_ends_in_train_mode(mode, inside):
    model = network()
    with batch_norm(model, mode):
        assert model.training == inside
        model(X)
    assert model.training
    assert model.state_dict()["0.num_batches_tracked"] == inside

    with pytest.raises(RuntimeError), batch_norm(model, mode):
        raise RuntimeError
    assert model.training


def test_a_step_is_one_gradient_step_whatever_lay_in_the_gradients():
    model, twin = network(), network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)

    loss = Plain(weight=2.0).step(state(model, optimizer), X, Y)

    expected = 2 * cross_entropy(twin(X), Y).mean()
    grads = torch.autograd.grad(expected, list(twin.parameters()))
    assert not loss.requires_grad
    assert torch.equal(loss, expected.detach())
    for after, before, grad in zip(model.parameters(), twin.parameters(), grads, strict=True):
        torch.testing.assert_close(after.detach(), (before - 0.5 * grad).detach())


def test_the_optimizer_is_the_task_s():
    model = network()
    fields: dict[str, Any] = {"epochs": 1, "lr": 0.3, "momentum": 0.8, "weight_decay": 0.01}

    sgd = Plain().optimizer(model, Training(**fields))
    adam = Plain().optimizer(model, Training(**fields, optimizer="adam"))

    assert isinstance(sgd, torch.optim.SGD)
    assert {k: sgd.defaults[k] for k in ("lr", "momentum", "weight_decay")} == {k: fields[k] for k in list(fields)[1:]}
    assert isinstance(adam, torch.optim.Adam)
    assert (adam.defaults["lr"], adam.defaults["weight_decay"]) == (0.3, 0.01)
    assert len(sgd.param_groups[0]["params"]) == len(list(model.parameters()))


def test_hyper_parameters_are_fixed_and_known():
    unknown: dict[str, Any] = {"wieght": 2.0}
    with pytest.raises(ValidationError):
        Plain(**unknown)
    with pytest.raises(ValidationError):
        Plain().weight = 3.0
    with pytest.raises(ValidationError):
        Plain(weight=float("nan"))


def test_what_a_defense_must_write_is_not_guessed():
    optimizer = torch.optim.SGD(network().parameters(), lr=1)
    with pytest.raises(NotImplementedError):
        Defense().loss(state(network(), optimizer), X, Y)
    with pytest.raises(NotImplementedError):
        Defense().passes()


def test_gradients_can_be_changed_between_the_backward_pass_and_the_update():
    class Shared(Plain):
        def communicate(self, state: TrainState) -> None:
            for parameter in state.model.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(2)

    one, two = network(), network()
    Plain(weight=2.0).step(state(one, torch.optim.SGD(one.parameters(), lr=0.5)), X, Y)
    Shared(weight=1.0).step(state(two, torch.optim.SGD(two.parameters(), lr=0.5)), X, Y)

    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b)
