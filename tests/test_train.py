"""A training that was killed ends in the same weights as one that was not, and the loop does what it says."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killed import Stop, killed
from torch import Tensor, nn

from advbench.attacks.pgd import ascend
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState, batch_norm
from advbench.losses import cross_entropy
from advbench.threat import Norm, Threat
from advbench.train import Diverged, Trained, learning_rate, train, validate

EPOCHS, STEPS = 3, 5
"""70 examples in batches of 16: four whole ones and one of six."""
NEVER, ALWAYS = 1e9, 1e-9
"""Checkpoint intervals: at the end of epochs only, after every step."""


class Fussy(Defense):
    """Uses everything that a checkpoint has to keep: noise, memory, reports, dropout, batch norm."""

    name = "fussy"
    paper = "none"

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        with batch_norm(state.model, "train"):
            start = state.threat.random_start(x, state.noise)
            x_adv = ascend(state.model, x, y, state.threat, start=start, steps=2, step_size=state.threat.eps / 2)
        plain = cross_entropy(state.model(x_adv), y).mean()
        state.memory["mean"] = 0.9 * state.memory.get("mean", torch.ones(())) + 0.1 * plain.detach()
        state.memory["count"] = state.memory.get("count", 0) + 1
        # The first is attached to the graph, as a newcomer would write it.
        state.report |= {"plain": plain, "count": state.memory["count"]}
        # Memory moves the weights, so a lost one is seen in them.
        return plain * (1 + 0.5 * state.memory["mean"] + 0.01 * state.memory["count"])


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(36, 3)
    )


@pytest.fixture
def subsets(blobs: Callable[..., Examples]) -> Subsets:
    return Subsets(train=blobs(70), validation=blobs(30, seed=1), test=blobs(10, seed=2))


@pytest.fixture
def job(make_job):
    """A job in which every part of a training state matters."""

    def make(minutes: float = NEVER, **changes: Any):
        fields = {"augment": "crop-flip", "eps_ramp": 1.5, "checkpoint_minutes": minutes}
        return make_job(training={"epochs": EPOCHS, "batch": 16, "lr": 0.05, **fields, **changes})

    return make


def quiet(*news: object) -> None:
    """Tells nobody."""


class Told:
    """Keeps the words of the progress."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, stage: str, done: int, total: int, words: str) -> None:
        self.words.append(words)


def outcome(trained: Trained) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """All weights and the history without its seconds."""
    weights = {f"{kind}.{n}": t for kind in ("last", "best") for n, t in getattr(trained, kind).items()}
    return weights, [epoch.model_copy(update={"seconds": 0}).plain() for epoch in trained.history]


def assert_equal(one: Trained, other: Trained) -> None:
    """Bit for bit."""
    (weights, history), (others, other_history) = outcome(one), outcome(other)
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []
    assert history == other_history
    assert one.best_epoch == other.best_epoch


@pytest.mark.parametrize(
    ("optimizer", "minutes", "steps"),
    [("sgd", ALWAYS, range(1, EPOCHS * STEPS)), ("sgd", NEVER, [7, 13]), ("adam", ALWAYS, [3, 5, 6, 11])],
)
def test_a_training_killed_at_any_step_ends_in_the_same_weights(
    tmp_path: Path, job, subsets, optimizer, minutes, steps
):
    whole = train(job(optimizer=optimizer), subsets, Fussy(), network(), tmp_path / "whole.pt", quiet)

    for step in steps:
        checkpoint, told = tmp_path / f"{step}.pt", Told()
        with pytest.raises(Stop):
            train(job(minutes, optimizer=optimizer), subsets, killed(step, Fussy), network(), checkpoint, quiet)
        # Another start of the weights and another global stream: all must come from the checkpoint.
        resumed = network(step)
        again = train(job(minutes, optimizer=optimizer), subsets, Fussy(), resumed, checkpoint, told)

        assert told.words[0] == "resumed"
        assert_equal(again, whole)
        assert torch.equal(resumed.state_dict()["5.weight"], whole.last["5.weight"])


def test_a_training_killed_often_ends_in_the_same_weights(tmp_path: Path, job, subsets):
    whole = train(job(), subsets, Fussy(), network(), tmp_path / "whole.pt", quiet)
    checkpoint = tmp_path / "c.pt"

    for life, lived in enumerate((2, 1, 4, 3)):
        with pytest.raises(Stop):
            train(job(ALWAYS), subsets, killed(lived, Fussy), network(life), checkpoint, quiet)

    assert_equal(train(job(ALWAYS), subsets, Fussy(), network(9), checkpoint, quiet), whole)
    # And once more from the end: nothing is left to do.
    assert_equal(train(job(ALWAYS), subsets, killed(0, Fussy), network(9), checkpoint, quiet), whole)


def test_when_checkpoints_are_written_changes_nothing(tmp_path: Path, job, subsets):
    trained = [
        train(job(minutes), subsets, Fussy(), network(), tmp_path / f"{minutes}.pt", quiet)
        for minutes in (ALWAYS, 1e-5, NEVER)
    ]

    assert_equal(trained[0], trained[1])
    assert_equal(trained[0], trained[2])


def test_seeds_differ_in_all_that_is_drawn(tmp_path: Path, job, subsets):
    one, other = (
        train(job().model_copy(update={"seed": seed}), subsets, Fussy(), network(), tmp_path / f"{seed}.pt", quiet)
        for seed in (0, 1)
    )

    assert not torch.equal(one.last["5.weight"], other.last["5.weight"])


def truncated(content: bytes) -> Sequence[bytes]:
    return [content[: int(share * len(content))] for share in (0, 0.1, 0.5, 0.9, 0.999)]


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_damaged_or_foreign_checkpoint_is_not_used(tmp_path: Path, job, subsets):
    checkpoint = tmp_path / "c.pt"
    whole = train(job(), subsets, Fussy(), network(), checkpoint, quiet)
    foreign = tmp_path / "foreign.pt"
    train(job(lr=0.01), subsets, Fussy(), network(), foreign, quiet)

    for content in [*truncated(checkpoint.read_bytes()), foreign.read_bytes(), b"no", pickled([1]), pickled({"a": 1})]:
        checkpoint.write_bytes(content)
        told = Told()
        again = train(job(), subsets, Fussy(), network(), checkpoint, told)

        assert "resumed" not in told.words
        assert_equal(again, whole)


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path, job, subsets):
    class Breaks(Fussy):
        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            return super().loss(state, x, y) * (math.nan if state.progress > 0.5 else 1)

    with pytest.raises(Diverged, match=r"nan in epoch 2 of 3"):
        train(job(), subsets, Breaks(), network(), tmp_path / "c.pt", quiet)


def test_a_report_that_is_not_finite_is_left_out_and_costs_nothing(tmp_path: Path, job, subsets):
    class Reports(Fussy):
        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            loss = super().loss(state, x, y)
            state.report["ratio"] = math.nan if state.epoch == 1 else 0.5
            return loss

    history = train(job(), subsets, Reports(), network(), tmp_path / "c.pt", quiet).history

    assert ["ratio" in epoch.extra for epoch in history] == [True, False, True]


def test_reports_are_means_over_examples(tmp_path: Path, job, subsets):
    history = train(job(), subsets, Fussy(), network(), tmp_path / "c.pt", quiet).history

    sizes = np.array([16, 16, 16, 16, 6])
    for number, epoch in enumerate(history):
        counts = 1 + STEPS * number + np.arange(STEPS)
        assert epoch.extra["count"] == pytest.approx((counts * sizes).sum() / 70)


CURVES = {
    "cyclic": ({"schedule": "cyclic", "peak": 0.4}, lambda t: np.interp(t, [0, 0.4, 1], [0, 0.3, 0])),
    "piecewise": (
        {"schedule": "piecewise", "milestones": [0.5, 0.75], "decay": 0.1},
        lambda t: 0.3 if t < 0.5 else 0.03 if t < 0.75 else 0.003,
    ),
    "cosine": ({"schedule": "cosine"}, lambda t: 0.15 * (1 + math.cos(math.pi * t))),
    "constant": ({"schedule": "constant"}, lambda t: 0.3),
}


@pytest.mark.parametrize("name", CURVES)
def test_the_learning_rate_follows_its_schedule_step_by_step(tmp_path: Path, job, subsets, name):
    fields, curve = CURVES[name]
    seen: list[float] = []

    class Spy(Fussy):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            seen.append(state.optimizer.param_groups[0]["lr"])
            return super().step(state, x, y)

    trained = train(job(**fields | {"lr": 0.3}), subsets, Spy(), network(), tmp_path / "c.pt", quiet)

    share = [k / (EPOCHS * STEPS) for k in range(EPOCHS * STEPS)]
    assert seen == pytest.approx([curve(t) for t in share], abs=1e-12)
    assert [epoch.lr for epoch in trained.history] == seen[STEPS - 1 :: STEPS]
    for share in (0.4, 0.5, 0.75, 1.0):  # where a schedule turns
        assert learning_rate(job(**fields | {"lr": 0.3}).training, share) == pytest.approx(curve(share), abs=1e-12)


@pytest.mark.parametrize("ramp", [0, 1.5, 2, 2.9])
def test_eps_grows_in_a_straight_line_over_the_ramp(tmp_path: Path, job, subsets, ramp):
    seen: list[float] = []

    class Spy(Fussy):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            seen.append(state.threat.eps)
            return super().step(state, x, y)

    history = train(job(eps_ramp=ramp), subsets, Spy(), network(), tmp_path / "c.pt", quiet).history

    epochs = [k / STEPS for k in range(EPOCHS * STEPS)]
    assert seen == pytest.approx([0.1 * (min(1, e / ramp) if ramp else 1) for e in epochs], rel=1e-12, abs=0)
    assert [epoch.eps for epoch in history] == seen[STEPS - 1 :: STEPS]
    # Where the ramp is over, eps is the threat's own and not nearly so.
    assert all(eps == 0.1 for eps, e in zip(seen, epochs, strict=True) if e >= ramp)


def test_validation_is_that_of_a_plain_loop_and_does_not_depend_on_the_batch(blobs):
    data, model = blobs(30, seed=1), network()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    balls: list[tuple[Norm, float]] = [("Linf", 0.1), ("L2", 0.6)]
    for norm, eps in balls:
        found = [validate(model, data, Threat(norm, eps), batch) for batch in (7, 16, 500)]
        assert found[0] == found[1] == found[2]
        model.eval()
        x, y, threat = data.pixels(slice(None)), data.labels, Threat(norm, eps)
        fgsm = ascend(model, x, y, threat, start=x, steps=1, step_size=eps)
        predicted = model(x).argmax(1)
        assert found[0]["clean"] == pytest.approx((predicted == y).float().mean().item())
        assert found[0]["fgsm"] == pytest.approx((model(fgsm).argmax(1) == y).float().mean().item())
        assert found[0]["top_class"] == predicted.bincount().max() / 30
        model.train()

    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
