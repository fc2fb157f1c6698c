"""Angles between successive steps, where they are known: on quadratics, and for gradients that the test chooses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from advbench import find
from advbench.collectors.updates import Turns, Updates
from advbench.spec import BadInput

CPU = torch.device("cpu")


def cosines(vectors: Tensor) -> Tensor:
    """Between rows that follow each other."""
    units = vectors / vectors.norm(dim=1, keepdim=True)
    return (units[1:] * units[:-1]).sum(1)


def found(turns: Turns) -> dict[str, float | None]:
    return {name: measure.value for name, measure in turns.read().values.items()}


def descend(curvature: Tensor, start: Tensor, lr: float, steps: int) -> dict[str, float | None]:
    """Gradient descent on half the sum of curvature * weight^2."""
    weights = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([weights], lr)
    turns = Turns(optimizer)
    turns.restore({}, CPU)
    for _ in range(steps):
        optimizer.zero_grad()
        (0.5 * curvature * weights.square()).sum().backward()
        optimizer.step()
    return found(turns)


@pytest.mark.parametrize(("rate", "cosine", "back"), [(0.3, 1, 0), (0.99, 1, 0), (1.01, -1, 1), (1.7, -1, 1)])
def test_along_one_curvature_a_step_goes_on_below_its_inverse_and_turns_back_above(rate, cosine, back):
    seen = descend(torch.full((3,), 4.0).double(), torch.tensor([1.0, -2.0, 0.5]).double(), rate / 4, 6)

    assert seen == {
        "gradient_cosine": pytest.approx(cosine, abs=1e-9),
        "gradient_reversals": back,
        "update_cosine": pytest.approx(cosine, abs=1e-9),
        "update_reversals": back,
    }


@pytest.mark.parametrize("lr", [0.02, 0.11, 0.15, 0.19])
def test_on_a_quadratic_of_many_curvatures_the_mean_is_the_closed_form(lr: float):
    curvature, start = torch.tensor([10.0, 6.0, 1.0, 0.1]).double(), torch.tensor([1.0, -1.0, 3.0, 5.0]).double()
    # theta_t = (1 - lr lambda)^t theta_0, so that gradient t is lambda (1 - lr lambda)^t theta_0.
    expected = cosines(torch.stack([curvature * (1 - lr * curvature) ** t * start for t in range(12)]))
    seen = descend(curvature, start, lr, 12)

    assert seen["gradient_cosine"] == pytest.approx(float(expected.mean()), abs=1e-9)
    assert seen["update_cosine"] == pytest.approx(float(expected.mean()), abs=1e-9)
    assert seen["gradient_reversals"] == float((expected < 0).double().mean())


class Chosen:
    """Two weights, one of them laid out as convolutions like it, whose gradients are the rows of a matrix (T, 40)."""

    def __init__(self, momentum: float = 0, shaken: float = 0) -> None:
        first, second = torch.zeros(2, 3, 3, 2).double(), torch.zeros(4).double()
        self.weights = [nn.Parameter(first.to(memory_format=torch.channels_last)), nn.Parameter(second)]
        self.optimizer = torch.optim.SGD(self.weights, 0.1, momentum)
        self.turns, self.shaken = Turns(self.optimizer), shaken
        self.turns.restore({}, CPU)

    def steps(self, gradients: Tensor) -> Chosen:
        for gradient in gradients:
            for weight, part in zip(self.weights, gradient.split([36, 4]), strict=True):
                weight.grad = part.view(weight.shape).clone()
            with torch.no_grad():
                # As a defense does that looks for its gradients elsewhere: no move of the optimizer's.
                for weight in self.weights:
                    weight += self.shaken
            self.optimizer.step()
        return self


@pytest.fixture
def gradients() -> Tensor:
    return torch.randn(9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("shaken", [0, 0.3])
def test_momentum_is_in_the_moves_and_not_in_the_gradients(gradients: Tensor, shaken: float):
    moves = [gradients[0]]
    for gradient in gradients[1:]:
        moves.append(0.9 * moves[-1] + gradient)
    expected = {"gradient": cosines(gradients), "update": cosines(torch.stack(moves))}
    seen = found(Chosen(0.9, shaken).steps(gradients).turns)

    for kind, values in expected.items():
        assert seen[f"{kind}_cosine"] == pytest.approx(float(values.mean()), abs=1e-9)
        assert seen[f"{kind}_reversals"] == float((values < 0).double().mean())
    assert float(expected["update"].mean()) > 0.5 > 0.2 > abs(float(expected["gradient"].mean()))


def test_what_was_kept_in_between_goes_on_bit_for_bit(gradients: Tensor):
    whole, one, other = Chosen(0.5).steps(gradients), Chosen(0.5).steps(gradients[:4]), Chosen(0.5)
    for mine, theirs in zip(other.weights, one.weights, strict=True):
        mine.data.copy_(theirs.data)
    other.optimizer.load_state_dict(one.optimizer.state_dict())
    other.turns.restore(one.turns.keep(), CPU)

    assert found(other.steps(gradients[4:]).turns) == found(whole.turns)
    assert found(one.turns) != found(whole.turns)


def test_steps_that_go_nowhere_are_in_no_pair(gradients: Tensor):
    some = torch.stack([gradients[0], 0 * gradients[0], gradients[1], gradients[2], 0 * gradients[0], -gradients[2]])
    seen = found(Chosen().steps(some).turns)

    assert seen["gradient_cosine"] == pytest.approx(float(cosines(gradients[1:3])), abs=1e-9)
    assert seen["gradient_reversals"] in (0, 1)
    nothing = found(Chosen().steps(gradients[:1]).turns)
    assert set(nothing.values()) == {None}


def test_steps_at_a_right_angle_turn_nowhere_back():
    gradients = torch.zeros(2, 40, dtype=torch.float64)
    gradients[0, 0] = gradients[1, 1] = 1

    turns = Chosen().steps(gradients).turns

    assert found(turns) == dict.fromkeys(found(turns), 0)
    assert turns.read().notes == ("successive steps of the optimizer in one epoch, in all weights at once",)


def test_tiny_steps_have_angles_too():
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], 1.0)
    turns = Turns(optimizer)
    turns.restore({}, CPU)
    for gradient in ([1e-15, 0.0], [1e-15, 1e-15]):  # the product of their squared lengths is no float
        weight.grad = torch.tensor(gradient)
        optimizer.step()

    assert found(turns)["gradient_cosine"] == pytest.approx(math.sqrt(0.5), rel=1e-6)


def test_a_weight_without_a_gradient_counts_as_one_that_does_not_move():
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([used, unused], 0.1)
    turns = Turns(optimizer)
    turns.restore({}, CPU)
    for gradient in ([1.0, 0.0], [1.0, 1.0]):
        used.grad = torch.tensor(gradient)
        optimizer.step()

    assert found(turns)["update_cosine"] == pytest.approx(math.sqrt(0.5), rel=1e-6)


def test_it_is_asked_for_without_examples():
    assert Updates().every == 1
    with pytest.raises(BadInput, match=r"^collect\.updates\.examples: looks at the steps of the training"):
        find.collectors({"updates": {"examples": 64}})
