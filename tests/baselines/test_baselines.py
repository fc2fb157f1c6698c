"""Every file in `baselines/`: a new one is tested by existing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import find, train
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.passes import counting
from advbench.seeds import Stream, generator
from advbench.threat import Norm, Threat
from advbench.wrapper import Crafted, Wrapper

FILES = sorted(find.shipped("baselines").glob("*.py"))
every_baseline = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
VARYING = {"dynamic-at"}
"""Their examples stop when they are done, so what they cost depends on the model: `passes` is the most."""
FEWER = {"entropy-sgd": {"inner_steps": 5}}
"""What does as well in a quarter of the time."""
ASCENT: dict[str, Any] = {"steps": 10, "step_size": 0.25, "attack_bn": "eval"}
ALONE: dict[str, Any] = {"base": {"name": "pgd-at", "steps": 10, "step_size": 0.25, "attack_bn": "train"}}
USUAL: dict[str, dict[str, Any]] = {
    "awp": ALONE | {"gamma": 0.01},
    "consistency": ASCENT | {"weight": 1, "temperature": 0.5, "shift": 1 / 32, "views": "shift"},
    "dat": {
        **ASCENT,
        "processes": 1,
        "attack": "pgd",
        "step_size": None,
        "clean_weight": 1,
        "gradients": "none",
        "sync_bn": False,
        "layerwise": "lamb",
        "unlabelled": "none",
        "unlabelled_ratio": 1,
    },
    "dynamic-at": ASCENT
    | {"c_max": 0.5, "decay": 100 / 120, "start": "image", "fosc_ref": "image", "loss_weight": "none"},
    "elle": {
        "weight": 1000,
        "adaptive": False,
        "decay": 0.99,
        "sensitivity": 2,
        "step_size": 1,
        "attack_bn": "train",
    },
    "entropy-sgd": ALONE | {"inner_steps": 20, "inner_lr": 0.1, "gamma": 1e-4, "noise": 1e-4, "alpha": 0.75},
    "fast-at": {"step_size": 1.25, "start_in_box": False, "attack_bn": "train"},
    "fast-bat": {"step_size": None, "ig_scale": None, "start_steps": 1, "attack_bn": "train"},
    "fgsm-pgi": {"weight": 10, "momentum": 0.3, "reset": 40, "step_size": 1},
    "free-at": {"replays": 8, "step_size": 1},
    "gradalign": {"weight": 0.2, "step_size": 1, "attack_bn": "train"},
    "guided-at": {
        "weight": 10,
        "factor": 4,
        "factor_from": 0.86,
        "guide": "alternate",
        "noise": 0.5,
        "step_size": 1,
        "attack_bn": "eval",
    },
    "ibp": {"kappa_end": 0.5, "warmup": 2_000 / 60_000, "ramp": 10_000 / 60_000, "radius": 1.1},
    "input-gradient-regularisation": {"weight": 1.1},
    "mart": ASCENT | {"beta": 5},
    "mean-teacher": ASCENT | {"weight": 1, "decay": 0.999, "ramp": 0.25},
    "n-fgsm": {"noise": 2, "step_size": 1, "attack_bn": "train"},
    "nu-at": {"weight": 4.5, "ramp": 0.9, "noise": 0.5, "step_size": 1, "attack_bn": "eval"},
    "pgd-at": ASCENT | {"attack_bn": "train"},
    "sam-at": ALONE | {"rho": 0.05},
    "standard": {},
    "trades": ASCENT | {"beta": 6},
    "zero-grad": {"quantile": 0.35, "step_size": 2, "attack_bn": "train"},
}
"""What a table with nothing but a name asks for, as the papers have it: each field's own line says where."""
CLEAN = {"standard", "input-gradient-regularisation"}
"""Those that train on no perturbed image."""
AGAIN = {"awp", "elle", "entropy-sgd", "fgsm-pgi", "mean-teacher", "sam-at"}
"""Steps of their own that run out of memory before they have changed anything."""
EPS: dict[Norm, str] = {"Linf": "1/20", "L2": "3/10", "L1": "3/2"}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(36, 3))


@pytest.fixture
def subsets(blobs: Callable[..., Examples]) -> Subsets:
    return Subsets(train=blobs(32), validation=blobs(12, seed=1), test=blobs(3, seed=2))


def test_there_are_baselines():
    assert {"standard", "fast_at", "pgd_at", "dynamic_at", "fast_bat"} <= {path.stem for path in FILES}


@every_baseline
def test_a_baseline_is_one_defense_that_names_itself_and_its_paper(path: Path):
    made = find.defense(path)

    assert made.name == path.stem.replace("_", "-")
    assert re.search(r"\d{4}\.\d{4,5}|doi|openreview\.net", made.paper), "an arXiv number, a doi or OpenReview"
    assert (made.__doc__ or "").strip()
    assert made().norms
    assert set(made().norms) <= set(EPS)
    # Its defaults are a whole defense, and all of them are plain values for the record.
    assert find.defended(made, made().plain(), path.parent) == made()


@pytest.mark.parametrize("name", USUAL)
def test_what_a_task_leaves_out_is_the_paper_s(name: str):
    made = find.defense(find.shipped("baselines") / f"{name.replace('-', '_')}.py")

    assert made().plain() == USUAL[name]
    assert made().adversarial == (name not in CLEAN)
    # A number that has to be something may be little of it.
    little = {field: 1e-6 for field, of in made.model_fields.items() if "float" in str(of.annotation)}
    assert find.build(made, little).plain() == USUAL[name] | little


@every_baseline
@pytest.mark.parametrize("norm", ["Linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("L2", "L1"))])
def test_a_baseline_trains_and_costs_what_it_says(path: Path, tmp_path: Path, make_job, subsets, norm: Norm):
    made = find.defense(path)
    if norm not in made().norms:
        pytest.skip(f"{made.name} is not defined for {norm}")
    job = make_job(threat={"norm": norm, "eps": EPS[norm]}, training={"epochs": 2, "batch": 16, "lr": 0.05})
    model, before = network(), network().state_dict()

    defense = made(**FEWER.get(made.name, {}))
    trained = train.train(job, subsets, defense, model, tmp_path / "c.pt", lambda *news: None)

    # Two epochs of two steps. A loss that is not finite would have raised.
    forward, backward = defense.passes()
    for epoch in trained.history:
        if made.name in VARYING:
            assert 0 < epoch.forward <= forward * 32
            assert 0 < epoch.backward <= backward * 32
        else:
            assert (epoch.forward, epoch.backward) == (forward * 32, backward * 32)
    assert all(value.isfinite().all() for value in trained.last.values())
    assert any(not torch.equal(before[name], value) for name, value in trained.last.items() if "weight" in name)
    assert model.training
    # The same again is the same, bit for bit: no random number comes from elsewhere.
    torch.manual_seed(1)
    again = train.train(job, subsets, defense, network(), tmp_path / "d.pt", lambda *news: None)
    assert all(torch.equal(again.last[name], value) for name, value in trained.last.items())


@every_baseline
def test_the_loss_of_a_baseline_touches_no_parameter_gradient(path: Path, blobs):
    made, model = find.defense(path)(), network()
    if isinstance(made, Wrapper):
        pytest.skip(f"{made.name} has no loss but its base's")
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7.0)
    data = blobs(8)

    loss = made.loss(state_of(made, model), data.pixels(slice(None)), data.labels)

    assert loss.requires_grad
    assert loss.shape == ()
    assert all((parameter.grad == 7.0).all() for parameter in model.parameters())


def state_of(made: Defense, model: nn.Module) -> TrainState:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return TrainState(model.train(), optimizer, Threat(made.norms[0], 0.1), Stream(generator("cpu", 0)))


@every_baseline
def test_at_other_weights_the_same_examples_cost_what_it_says(path: Path, blobs):
    made, model = find.defense(path)(), network()
    if type(made).step is not Defense.step:
        pytest.skip(f"{made.name} owns its step, so no wrapper asks it")
    if made.name == "fast-bat":
        pytest.skip("its gradient goes through its attack, which is made again")
    data, crafted = blobs(8), Crafted(state_of(made, model))
    x, y = data.pixels(slice(None)), data.labels
    with crafted.first():
        made.backward(crafted.state, x, y)

    with crafted.again(), counting(model) as passes:
        made.backward(crafted.state, x, y)

    assert (passes.forward / 8, passes.backward / 8) == made.weight_passes()


@every_baseline
def test_a_step_that_can_be_taken_again_has_left_the_weights_as_they_were(path: Path, blobs):
    made, model = find.defense(path)(**FEWER.get(find.defense(path).name, {})), network()
    assert made.repeatable or made.name not in AGAIN
    if not made.repeatable:
        pytest.skip("the usual step, or one that is not taken again")
    state, data, met = state_of(made, model), blobs(8), list[int]()
    state.rows, state.examples = torch.arange(8), 8
    x, y = data.pixels(slice(None)), data.labels
    handle = model.register_forward_pre_hook(lambda *_: met.append(0))
    made.step(state, x, y)
    handle.remove()
    before, last = [weight.detach().clone() for weight in model.parameters()], len(met)
    met.clear()

    def full(*_: object) -> None:
        met.append(0)
        if len(met) == last:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError):
        made.step(state, x, y)

    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


@pytest.mark.slow
@every_baseline
def test_a_baseline_learns(path: Path, tmp_path: Path, make_job, blobs):
    sets = Subsets(train=blobs(96), validation=blobs(48, seed=1), test=blobs(3, seed=2))
    made = find.defense(path)
    job = make_job(
        threat={"norm": made().norms[0], "eps": EPS[made().norms[0]]},
        training={"epochs": 8, "batch": 16, "lr": 0.02, "optimizer": "adam"},
    )

    defense = made(**FEWER.get(made.name, {}))
    history = train.train(job, sets, defense, network(), tmp_path / "c.pt", lambda *news: None).history

    assert history[-1].clean > 0.9
    if made().adversarial:
        assert history[-1].pgd > 0.5


@every_baseline
def test_a_baseline_that_was_killed_ends_like_one_that_was_not(path: Path, tmp_path: Path, make_job, blobs):
    sets = Subsets(train=blobs(40), validation=blobs(12, seed=1), test=blobs(3, seed=2))
    made = find.defense(path)
    fields = {"epochs": 3, "batch": 16, "lr": 0.05, "augment": "crop-flip", "checkpoint_minutes": 1e-9}
    job = make_job(threat={"norm": made().norms[0], "eps": EPS[made().norms[0]]}, training=fields)
    steps = 0

    class Killed(made):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            if steps == 6:  # the third of the second epoch
                raise KeyboardInterrupt
            return super().step(state, x, y)

    def trained(kind: type[Defense], name: str) -> train.Trained:
        defense = kind(**FEWER.get(made.name, {}))
        return train.train(job, sets, defense, network(), tmp_path / name, lambda *news: None)

    whole = trained(made, "whole.pt")
    with pytest.raises(KeyboardInterrupt):
        trained(Killed, "killed.pt")
    resumed = trained(made, "killed.pt")

    assert all(torch.equal(resumed.last[name], value) for name, value in whole.last.items())
    assert [e.loss for e in resumed.history] == [e.loss for e in whole.history]
    reported = [
        [{name: value for name, value in e.extra.items() if "seconds" not in name} for e in training.history]
        for training in (resumed, whole)
    ]
    assert reported[0] == reported[1]
    assert [e.forward for e in resumed.history] == [e.forward for e in whole.history]
