"""What a defense finds at a step where nobody says otherwise, and how a batch in pieces or in parts adds up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.defense import Defense, TrainState
from advbench.losses import cross_entropy
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.threat import Threat

X, Y = torch.rand(5, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 1])


class Plain(Defense):
    name = "plain"
    paper = "none"

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        state.memory.setdefault("met", []).append((len(x), state.rows.tolist()))
        return state.cross_entropy(state.model(x), y)


def state(**fields: Any) -> TrainState:
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    return TrainState(model, optimizer, Threat("Linf", 0.1), Stream(generator("cpu", 0)), **fields)


def test_a_step_begins_with_nothing() -> None:
    made = vars(state())
    nothing = {"epoch": 0, "progress": 0, "step": 0, "examples": 0, "smoothing": 0, "smoothed": False, "micro": 0}

    assert made["rows"].tolist() == []
    assert {name: made[name] for name in nothing} == nothing
    assert (made["weight"], made["memory"], made["report"], made["group"].world) == (1, {}, {}, 1)
    assert (made["average"], made["unlabelled"], made["exchange"]) == (None, None, None)


def test_a_defense_asks_for_nothing_unless_it_says_so() -> None:
    asked = Plain()

    assert (asked.workers(), asked.needs(), asked.weight_passes()) == (1, (), (1, 1))
    assert (asked.adversarial, asked.repeatable, asked.norms) == (True, False, ("Linf", "L2", "L1"))
    assert asked.prepare(state()) is None
    for kind in ("sgd", "adam"):
        made = asked.optimizer(nn.Linear(2, 2), Training(epochs=1, optimizer=kind))
        assert made.defaults["fused"] is True, "one kernel for all weights"


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_smoothed_as_the_task_says_and_is_known_to_have_been(smoothing: float) -> None:
    made, logits = state(smoothing=smoothing), torch.randn(5, 2)

    found = made.cross_entropy(logits, Y)
    torch.testing.assert_close(found, nn.functional.cross_entropy(logits, Y, label_smoothing=smoothing))
    assert made.smoothed
    torch.testing.assert_close(state().cross_entropy(logits, Y), cross_entropy(logits, Y).mean())


@pytest.mark.parametrize(
    ("micro", "met"),
    [
        (0, [(5, [7, 3, 9, 1, 4])]),
        (2, [(2, [7, 3]), (2, [9, 1]), (1, [4])]),
        (5, [(5, [7, 3, 9, 1, 4])]),
    ],
)
def test_a_batch_in_pieces_is_the_batch_and_each_piece_knows_its_rows(micro: int, met: list[Any]) -> None:
    rows = torch.tensor([7, 3, 9, 1, 4])
    whole, made = state(rows=rows), state(rows=rows, micro=micro)

    total, loss = Plain().step(whole, X, Y), Plain().step(made, X, Y)
    assert made.memory["met"] == met
    assert made.rows is rows
    torch.testing.assert_close(loss, total)
    for one, other in zip(made.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)


class Halves:
    """Two processes with equal gradients, of which this one keeps a note."""

    def __init__(self, world: int) -> None:
        self.world, self.met = world, list[list[list[float]]]()

    def average(self, gradients: list[Tensor]) -> None:
        self.met.append([gradient.flatten().tolist() for gradient in gradients])


@pytest.mark.parametrize("world", [1, 2])
def test_a_part_of_a_batch_weighs_what_it_is_of_the_whole(world: int) -> None:
    group: Any = Halves(world)
    made, alone = state(group=group, weight=1.2), state()
    made.model.bias.requires_grad_(False)  # type: ignore[union-attr]
    loss, expected = Plain().backward(made, X, Y), Plain().backward(alone, X, Y)

    assert torch.equal(loss, expected), "the loss of this part, unweighted"
    assert not loss.requires_grad
    gradients = [one.weight.grad.flatten() for one in (made.model, alone.model)]  # type: ignore[union-attr]
    torch.testing.assert_close(gradients[0], (1.2 if world > 1 else 1) * gradients[1])
    # Only what has a gradient is averaged, and nobody alone averages anything.
    assert group.met == ([[gradients[0].tolist()]] if world > 1 else [])
