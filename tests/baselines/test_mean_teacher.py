"""mean-teacher: who the teacher is, what it teaches, and that a killed training keeps it."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from killed import Stop, killed
from one_step import EPS, noise, small_network, state_of
from torch.nn.functional import cross_entropy

from advbench import find, train
from advbench.attacks.pgd import ascend
from advbench.data.subsets import Subsets
from advbench.passes import counting
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

KIND = find.defense(find.shipped("baselines") / "mean_teacher.py")


def defense(**fields: Any) -> Any:
    return find.build(KIND, fields)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_is_the_papers_by_hand(norm: Norm, batch: Any):
    x, y = batch
    model, other = small_network(), small_network()
    with torch.no_grad():
        for number, tensor in enumerate(other.state_dict().values()):
            if tensor.is_floating_point():
                tensor.mul_(0.5 + 0.2 * number)
    taught = {name: value.clone() for name, value in other.state_dict().items()}
    memory: dict[str, Any] = {"teacher": taught, "taken": 4000}
    state, hand = state_of(model, Threat(norm, EPS), memory=memory, progress=0.5), copy.deepcopy(model)
    start = state.threat.random_start(x, noise())

    defense(weight=3.0, steps=4).step(state, x, y)

    x_adv = ascend(hand.eval(), x, y, state.threat, start=start, steps=4, step_size=EPS / 4)
    logits = hand.train()(x_adv)
    with torch.no_grad():
        said = other.eval()(x).softmax(1)
    distance = (logits.softmax(1) - said).square().sum(1).mean()
    grads = torch.autograd.grad(cross_entropy(logits, y) + 3 * distance, [*hand.parameters()])
    assert distance > 0.01
    for now, old, g in zip(model.parameters(), hand.parameters(), grads, strict=True):
        torch.testing.assert_close(now, old - 0.1 * g, rtol=0, atol=1e-12)
    for name, value in model.state_dict().items():
        average = 0.999 * other.state_dict()[name] + 0.001 * value if value.is_floating_point() else value
        torch.testing.assert_close(taught[name], average, rtol=0, atol=1e-12)


def test_a_teacher_of_constant_weights_is_constant(batch: Any):
    model, made = small_network().float(), defense()
    # Neither the weights nor batch norm's statistics move.
    model.get_submodule("1").momentum = 0.0  # type: ignore[assignment]
    state, before = state_of(model, lr=0.0), copy.deepcopy(model.state_dict())
    for _ in range(5):
        made.step(state, batch[0].float(), batch[1])

    teacher = state.memory["teacher"]
    assert all(torch.equal(teacher[n], v) for n, v in before.items() if n != "1.num_batches_tracked")
    assert state.memory["taken"] == 5


def test_the_teacher_soon_forgets_the_random_start(batch: Any):
    """Until 1 - 1 / (n + 1) passes the decay, it is the mean of all places so far."""
    model, made = small_network(), defense(decay=0.9)
    state = state_of(model)
    places = [model.get_parameter("4.weight").detach().clone()]
    for _ in range(4):
        made.step(state, *batch)
        places.append(model.get_parameter("4.weight").detach().clone())

    torch.testing.assert_close(state.memory["teacher"]["4.weight"], torch.stack(places).mean(0), rtol=0, atol=1e-12)


def test_the_weight_rises_along_the_ramp():
    made = defense(ramp=0.4)

    assert [made.risen(progress) for progress in (0.4, 0.7, 1.0)] == [1, 1, 1]
    assert made.risen(0.0) == math.exp(-5)
    assert made.risen(0.2) == pytest.approx(math.exp(-5 / 4))
    assert defense(ramp=0.0).risen(0.0) == 1


def test_it_costs_what_it_says(batch: Any):
    model, made = small_network(), defense(steps=4)
    with counting(model) as passes:
        made.step(state_of(model), *batch)

    assert (passes.forward / 12, passes.backward / 12) == made.passes() == (6, 5)


def test_the_teacher_moves_no_statistics_of_the_student(batch: Any):
    model, made = small_network(), defense(weight=0.0)
    alone = copy.deepcopy(model)
    folder = find.shipped("baselines")
    plain = find.build(find.defense(folder / "pgd_at.py"), {"attack_bn": "eval"})

    made.step(state_of(model), *batch)
    plain.step(state_of(alone), *batch)

    assert all(torch.equal(value, alone.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("after", [1, 3])
def test_a_training_killed_anywhere_ends_in_the_same_weights(tmp_path: Path, make_job: Any, blobs: Any, after: int):
    sets = Subsets(train=blobs(32), validation=blobs(12, seed=1), test=blobs(3, seed=2))
    job = make_job(training={"epochs": 2, "batch": 16, "lr": 0.05, "checkpoint_minutes": 1e-9})
    whole = train.train(job, sets, KIND(), small_network().float(), tmp_path / "whole.pt", lambda *_: None)
    told = list[str]()
    with pytest.raises(Stop):
        train.train(job, sets, killed(after, KIND), small_network().float(), tmp_path / "c.pt", lambda *_: None)

    again = train.train(
        job, sets, KIND(), small_network().float(), tmp_path / "c.pt", lambda *news: told.append(news[-1])
    )

    assert told[0] == "resumed"
    assert all(torch.equal(again.last[name], value) for name, value in whole.last.items())
    assert [line.extra for line in again.history] == [line.extra for line in whole.history]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"weight": -1.0}, "weight: should be greater"),
        ({"decay": 1.0}, "decay: should be less"),
        ({"ramp": 1.5}, "ramp: should be less"),
        ({"steps": 0}, "steps: should be greater"),
    ],
)
def test_a_field_out_of_range_is_refused(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput, match=line):
        defense(**fields)
