"""DAT in one process: what a step costs and how long it is, and LAMB and LARS by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import find
from advbench.data.base import Examples
from advbench.defense import TrainState
from advbench.passes import counting
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.threat import Threat

DAT = find.defense(find.shipped("baselines") / "dat.py")
TRAINING = Training(epochs=1, lr=0.02, weight_decay=1e-4)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(64, 3)).double()


def batch() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)
    return torch.rand(20, 1, 6, 6, dtype=torch.float64, generator=draws), torch.randint(3, (20,), generator=draws)


def made(**fields: Any) -> Any:
    return find.build(DAT, {"steps": 3, **fields})


def ready(defense: Any) -> TrainState:
    model = network()
    noise = Stream(generator("cpu", 0, "attack"))
    state = TrainState(model.train(), defense.optimizer(model, TRAINING), Threat("Linf", 0.1), noise)
    if defense.unlabelled != "none":
        pool = torch.rand(40, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
        state.unlabelled = Examples(pool, torch.full((40,), -1), torch.arange(40), 255)
    defense.prepare(state)
    return state


def test_alone_nothing_is_sent_and_nobody_waits():
    defense = made()
    state = ready(defense)
    defense.step(state, *batch())

    assert "bytes_sent" not in state.report
    assert state.report["communication_seconds"] == 0
    assert 0 < float(state.report["attack_seconds"]) < 60
    assert 0 < float(state.report["compute_seconds"]) < 60


COSTS: dict[str, dict[str, Any]] = {
    "pgd": {},
    "fgsm": {"attack": "fgsm"},
    "adversarial": {"clean_weight": 0},
    "agree": {"unlabelled": "agree", "unlabelled_ratio": 0.5},
    "pseudo": {"unlabelled": "pseudo", "unlabelled_ratio": 2, "clean_weight": 0},
}


@pytest.mark.parametrize("name", COSTS)
def test_it_costs_what_it_says(name: str):
    defense = made(**COSTS[name])
    state = ready(defense)

    with counting(state.model) as passes:
        defense.step(state, *batch())

    assert (passes.forward / 20, passes.backward / 20) == defense.passes()


@pytest.mark.parametrize(("attack", "share"), [("pgd", 0.25), ("fgsm", 1.25)])
def test_left_out_the_step_is_the_paper_s(attack: str, share: float):
    found = list[float]()
    for size in (None, share, 0.9):
        defense = made(attack=attack, step_size=size)
        found.append(float(defense.loss(ready(defense), *batch()).detach()))

    assert found[0] == found[1] != found[2]


def test_lamb_is_the_paper_s_by_hand():
    """Betas 0.9 and 0.999, eps 1e-6, no bias correction, and no gradient is clipped."""
    theta = torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    layer = nn.Linear(2, 2, bias=False).double()
    layer.weight = nn.Parameter(theta.clone())
    optimizer = made().optimizer(layer, TRAINING.model_copy(update={"weight_decay": 0.5}))
    mean, square = torch.zeros(2, 2, 2, dtype=torch.float64)
    for number in range(4):
        g = 10.0**-number * torch.tensor([[1.0, -2.0], [30.0, 4.0 * number]], dtype=torch.float64)
        layer.weight.grad = g.clone()
        optimizer.step()

        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        way = mean / (square.sqrt() + 1e-6) + 0.5 * theta
        theta = theta - TRAINING.lr * theta.norm() / way.norm() * way
        torch.testing.assert_close(layer.weight.detach(), theta, rtol=1e-9, atol=0)


def test_lars_adds_the_layer_s_length_to_the_momentum():
    layer = nn.Linear(2, 2, bias=False).double()
    theta = layer.weight.detach().clone()
    optimizer = made(layerwise="lars").optimizer(
        layer, TRAINING.model_copy(update={"momentum": 0.6, "weight_decay": 0.0})
    )
    added = torch.zeros(2, 2, dtype=torch.float64)
    for number in range(3):
        g = torch.tensor([[1.0, -2.0], [30.0, 4.0 * number]], dtype=torch.float64)
        layer.weight.grad = g.clone()
        optimizer.step()

        added = 0.6 * added + theta.norm() / g.norm() * g
        theta = theta - TRAINING.lr * added
        torch.testing.assert_close(layer.weight.detach(), theta, rtol=1e-6, atol=0)
