"""Fields of `[training]`: each does what its paper says, and a killed training still ends in the same weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killed import Stop, killed
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from advbench import train as loop
from advbench.attacks.pgd import ascend
from advbench.average import LATEST
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.losses import cross_entropy
from advbench.train import train

STEPS = 15
"""230 examples in batches of 16: fourteen whole ones and one of six, more than the average looks back on."""


class Adversarial(Defense):
    """PGD-AT with two steps; dropout and batch norm in its network."""

    name = "adversarial"
    paper = "none"

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        start = state.threat.random_start(x, state.noise)
        x_adv = ascend(state.model, x, y, state.threat, start=start, steps=2, step_size=state.threat.eps / 2)
        return state.cross_entropy(state.model(x_adv), y)


def network(seed: int = 0, *, norm: bool = True) -> nn.Module:
    torch.manual_seed(seed)
    parts = [nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Dropout(0.3 if norm else 0), nn.Linear(36, 3))


@pytest.fixture
def subsets(blobs: Callable[..., Examples]) -> Subsets:
    return Subsets(train=blobs(230), validation=blobs(30, seed=1), test=blobs(10, seed=2))


def quiet(*news: object) -> None:
    """Tells nobody."""


EVERYTHING = {
    "average": 0.9,
    "precision": "bf16",
    "label_smoothing": 0.1,
    "clip_norm": 0.5,
    "warmup": 0.7,
    "augment": ["crop-flip", {"name": "cutout", "size": 3}, "randaugment"],
}


@pytest.mark.parametrize(
    "fields", [pytest.param(EVERYTHING, marks=pytest.mark.slow), {"average": 0.9}, {"precision": "bf16"}], ids=len
)
def test_a_training_killed_anywhere_ends_in_the_same_weights(tmp_path: Path, make_job, subsets, fields):
    job = make_job(training={"epochs": 2, "checkpoint_minutes": 1e-9, **fields})
    whole = train(job, subsets, Adversarial(), network(), tmp_path / "whole.pt", quiet)

    for step in (3, STEPS - LATEST + 1, STEPS - 1, STEPS + 4, 2 * STEPS - 1):
        checkpoint = tmp_path / f"{step}.pt"
        with pytest.raises(Stop):
            train(job, subsets, killed(step, Adversarial), network(), checkpoint, quiet)
        again = train(job, subsets, Adversarial(), network(9), checkpoint, quiet)

        for kind in ("last", "best"):
            mine, theirs = getattr(again, kind), getattr(whole, kind)
            assert [name for name in theirs if not torch.equal(mine[name], theirs[name])] == []
        # Passes of the rerun steps count once.
        assert [(e.forward, e.backward) for e in again.history] == [(e.forward, e.backward) for e in whole.history]
    assert whole.engine.precision == fields.get("precision", "fp32")


def test_what_is_left_and_validated_is_the_average(tmp_path: Path, make_job, subsets, monkeypatch):
    seen: list[nn.Module] = []
    validate = loop.validate

    def spy(model: nn.Module, *rest: object) -> dict[str, float]:
        seen.append(model)
        return validate(model, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "validate", spy)
    model = network()
    job = make_job(training={"average": 0.99})

    trained = train(job, subsets, Adversarial(), model, tmp_path / "c.pt", quiet)

    plain = train(make_job(), subsets, Adversarial(), network(), tmp_path / "d.pt", quiet)
    assert all(each is not model for each in seen[:3])
    # The network itself takes the very steps that it takes without an average.
    assert torch.equal(model.state_dict()["5.weight"], plain.last["5.weight"])
    assert not torch.equal(trained.last["5.weight"], plain.last["5.weight"])
    assert trained.last.keys() == plain.last.keys()
    # Its statistics were estimated anew from the last batches: 9 of 16 examples and one of 6.
    assert trained.last["1.num_batches_tracked"] == LATEST
    assert [e.forward for e in trained.history] == [e.forward + 9 * 16 + 6 for e in plain.history]


def test_label_smoothing_is_the_papers(make_job):
    logits = torch.randn(6, 4, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    targets = 0.9 * torch.eye(4, dtype=torch.float64)[labels] + 0.1 / 4

    torch.testing.assert_close(cross_entropy(logits, labels, 0.1), -(targets * log_softmax(logits, 1)).sum(1))


def test_smoothing_that_a_defense_leaves_out_is_told(tmp_path: Path, make_job, subsets):
    class Own(Adversarial):
        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            return cross_entropy(state.model(x), y).mean()

    job = make_job(training={"label_smoothing": 0.1})
    with pytest.raises(RuntimeError, match=r"label_smoothing: adversarial takes its loss elsewhere"):
        train(job, subsets, Own(), network(), tmp_path / "c.pt", quiet)
    train(make_job(), subsets, Own(), network(), tmp_path / "c.pt", quiet)


@pytest.mark.parametrize("norm", [1e-3, 1e3])
def test_gradients_are_clipped_to_the_norm_over_all_weights(tmp_path: Path, make_job, subsets, norm):
    sizes: list[float] = []

    class Spy(Adversarial):
        def optimizer(self, model: nn.Module, training: object) -> torch.optim.Optimizer:
            weights = list(model.parameters())

            class Watch(torch.optim.SGD):
                def step(self, closure: object = None) -> None:  # type: ignore[override]
                    grads = [w.grad for w in weights if w.grad is not None]
                    sizes.append(float(torch.cat([g.flatten() for g in grads]).norm()))
                    super().step()

            return Watch(weights, lr=0.1)

    train(make_job(training={"epochs": 1, "clip_norm": norm}), subsets, Spy(), network(), tmp_path / "c.pt", quiet)
    train(make_job(training={"epochs": 1}), subsets, Spy(), network(), tmp_path / "d.pt", quiet)

    clipped, free = sizes[:STEPS], sizes[STEPS:]
    if norm < 1:
        assert clipped == pytest.approx([norm] * STEPS, rel=1e-3)
        assert min(free) > 0.1
    else:
        assert clipped == free


def test_the_warm_up_scales_the_schedule_from_nothing(tmp_path: Path, make_job, subsets):
    seen: list[float] = []

    class Spy(Adversarial):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            seen.append(state.optimizer.param_groups[0]["lr"])
            return super().step(state, x, y)

    job = make_job(training={"schedule": "cosine", "warmup": 0.8, "lr": 0.3, "epochs": 2})
    train(job, subsets, Spy(), network(), tmp_path / "c.pt", quiet)

    def rate(step: int) -> float:
        return 0.15 * (1 + math.cos(math.pi * step / (2 * STEPS))) * min(1, step / STEPS / 0.8)

    assert seen == pytest.approx([rate(step) for step in range(2 * STEPS)], abs=1e-12)


def test_a_batch_that_does_not_fit_goes_in_pieces_to_the_same_end(tmp_path: Path, make_job, subsets):
    class Small(Adversarial):
        """On a device that holds five examples."""

        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            loss = super().loss(state, x, y)
            if len(x) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return loss

    told: list[str] = []
    job = make_job(training={"epochs": 1, "optimizer": "sgd", "lr": 0.01})
    whole = train(job, subsets, Adversarial(), network(norm=False), tmp_path / "c.pt", quiet)
    pieces = train(
        job, subsets, Small(), network(norm=False), tmp_path / "d.pt", lambda *news: told.append(str(news[3]))
    )

    assert [words for words in told if "memory" in words] == [
        "out of device memory: going on with 8 examples at a time",
        "out of device memory: going on with 4 examples at a time",
    ]
    assert (whole.engine.micro_batch, pieces.engine.micro_batch) == (0, 4)
    for name, value in whole.last.items():
        torch.testing.assert_close(pieces.last[name], value, rtol=1e-4, atol=1e-6)
    # What the tries that failed went through is not the result's cost.
    assert (pieces.history[0].forward, pieces.history[0].backward) == (230 * 3, 230 * 3)
    assert pieces.history[0].loss == pytest.approx(whole.history[0].loss, rel=1e-4)


def test_memory_that_ends_for_a_single_example_or_in_a_step_of_its_own_ends_the_job(tmp_path: Path, make_job, subsets):
    class Never(Adversarial):
        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Own(Adversarial):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    for defense in (Never(), Own()):
        with pytest.raises(torch.OutOfMemoryError):
            train(make_job(), subsets, defense, network(), tmp_path / "c.pt", quiet)
