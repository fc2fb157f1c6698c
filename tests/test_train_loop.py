"""What the training loop gives to a defense at each step, what it counts, and which epoch it calls the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import find, train
from advbench.attacks.pgd import ascend
from advbench.data.base import Examples
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.losses import cross_entropy
from advbench.parallel import Group
from advbench.seeds import BlockNoise, derive
from advbench.task import Defended
from advbench.threat import Threat


def baseline(name: str, **fields: object) -> Defense:
    return find.build(find.defense(find.defense_file(Defended(name=name), Path())), fields)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))


@pytest.fixture
def subsets(blobs: Callable[..., Examples]) -> Subsets:
    return Subsets(train=blobs(70), validation=blobs(30, seed=1), test=blobs(10, seed=2))


def quiet(*news: object) -> None:
    """Tells nobody."""


class Spy(Defense):
    """Keeps what it is given; trains a little."""

    name = "spy"
    paper = "none"

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        assert state.model.training
        SEEN.append((state.epoch, x.clone(), y.clone()))
        x.zero_()  # its own copy: the data must not notice
        return cross_entropy(state.model(SEEN[-1][1]), y).mean()


SEEN: list[tuple[int, Tensor, Tensor]] = []


@pytest.mark.parametrize("floats", [False, True])
def test_an_epoch_is_every_example_once_in_a_new_order(tmp_path: Path, make_job, blobs, floats):
    data = blobs(70, floats=floats)
    SEEN.clear()

    train.train(make_job(), Subsets(data, data, data), Spy(), network(), tmp_path / "c.pt", quiet)

    epochs = [torch.cat([x for epoch, x, _ in SEEN if epoch == e]) for e in range(3)]
    labels = [torch.cat([y for epoch, _, y in SEEN if epoch == e]) for e in range(3)]
    pixels = data.pixels(slice(None))
    places = [(x.flatten(1)[:, None] == pixels.flatten(1)).all(2).int().argmax(1) for x in epochs]
    assert all(sorted(p.tolist()) == list(range(70)) for p in places)
    assert all(torch.equal(data.labels[p], y) for p, y in zip(places, labels, strict=True))
    assert len({tuple(p.tolist()) for p in places}) == 3
    assert [len(x) for _, x, _ in SEEN] == [16, 16, 16, 16, 6] * 3


def test_a_last_batch_of_one_is_left_out_because_batch_norm_has_no_statistics_of_one(tmp_path: Path, make_job, blobs):
    SEEN.clear()
    sets = Subsets(blobs(33), blobs(30), blobs(10))

    history = train.train(make_job(), sets, baseline("standard"), network(), tmp_path / "c.pt", quiet).history
    train.train(make_job(), sets, Spy(), network(), tmp_path / "d.pt", quiet)

    assert [len(x) for _, x, _ in SEEN] == [16, 16] * 3
    assert [epoch.forward for epoch in history] == [32] * 3


@pytest.mark.parametrize(
    ("name", "fields", "passes", "tracked"),
    [
        ("standard", {}, 1, 1),
        ("fast-at", {}, 2, 2),
        ("fast-at", {"attack_bn": "eval"}, 2, 1),
        ("pgd-at", {"steps": 3}, 4, 4),
        ("pgd-at", {"steps": 3, "attack_bn": "eval"}, 4, 1),
    ],
)
def test_passes_and_batch_norm_updates_are_those_of_the_recipe(
    tmp_path: Path, make_job, subsets, name, fields, passes, tracked
):
    model = network()
    trained = train.train(make_job(), subsets, baseline(name, **fields), model, tmp_path / "c.pt", quiet)

    # Validation is not counted among them, and moves no statistics.
    assert [(epoch.forward, epoch.backward) for epoch in trained.history] == [(70 * passes, 70 * passes)] * 3
    assert trained.last["1.num_batches_tracked"] == tracked * 5 * 3
    assert baseline(name, **fields).passes() == (passes, passes)


@pytest.mark.parametrize(
    ("adversarial", "curve", "best"),
    [
        # (clean, PGD) by epoch
        (True, [(0.5, 0.3), (0.9, 0.2), (0.4, 0.4)], 3),
        (True, [(0.5, 0.4), (0.6, 0.4), (0.9, 0.3)], 2),
        (True, [(0.5, 0.4), (0.5, 0.4), (0.5, 0.4)], 1),
        (True, [(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], 1),
        (False, [(0.5, 0.3), (0.9, 0.0), (0.4, 0.4)], 2),
        (False, [(0.9, 0.1), (0.9, 0.2), (0.8, 0.9)], 2),
        (False, [(0.9, 0.2), (0.9, 0.2), (0.8, 0.9)], 1),
    ],
)
def test_the_best_epoch(tmp_path: Path, make_job, subsets, monkeypatch, adversarial, curve, best):
    at_end: list[dict[str, Tensor]] = []

    def scripted(model: nn.Module, *_: object) -> dict[str, float]:
        clean, pgd = curve[len(at_end)]
        at_end.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"clean": clean, "fgsm": 0.0, "pgd": pgd, "top_class": 0.5}

    monkeypatch.setattr(train, "validate", scripted)
    defense = baseline("fast-at" if adversarial else "standard")

    trained = train.train(make_job(), subsets, defense, network(), tmp_path / "c.pt", quiet)

    assert trained.best_epoch == best
    assert all(torch.equal(at_end[best - 1][name], value) for name, value in trained.best.items())
    assert all(torch.equal(at_end[-1][name], value) for name, value in trained.last.items())


def test_the_history_s_loss_is_the_mean_over_examples(tmp_path: Path, make_job, subsets):
    model = network()
    job = make_job(training={"epochs": 1, "lr": 1e-12})
    history = train.train(job, subsets, baseline("standard"), model, tmp_path / "c.pt", quiet).history

    # At a learning rate of nothing the losses of all batches are those of one model in train mode.
    order = torch.randperm(70, generator=train.generator("cpu", 0, "order", 0))
    batches = [order[i : i + 16] for i in range(0, 70, 16)]
    data = subsets.train
    with torch.no_grad():
        total = sum(float(cross_entropy(network()(data.pixels(b)), data.labels[b]).sum()) for b in batches)
    assert history[0].loss == pytest.approx(total / 70, rel=1e-5)


class Rows(Defense):
    """Keeps which rows it is told of, whole and in pieces, with the images that it is given for them."""

    name = "rows"
    paper = "none"

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        TOLD.append((state.epoch, state.step, state.rows, x.clone()))
        state.micro = 5
        for images, labels in state.pieces(x, y):
            PIECES.append((state.rows, images.clone(), labels))
        state.micro = 0
        assert state.rows is TOLD[-1][2]
        assert state.examples == 70
        return super().step(state, x, y)

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(state.model(x), y).mean()


TOLD: list[tuple[int, int, Tensor, Tensor]] = []
PIECES: list[tuple[Tensor, Tensor, Tensor]] = []


def test_a_defense_knows_which_examples_it_has_in_pieces_too(tmp_path: Path, make_job, subsets):
    TOLD.clear()
    PIECES.clear()

    train.train(make_job(training={"epochs": 2}), subsets, Rows(), network(), tmp_path / "c.pt", quiet)

    pixels, labels = subsets.train.pixels(slice(None)), subsets.train.labels
    assert [(epoch, step) for epoch, step, _, _ in TOLD] == [(epoch, step) for epoch in (0, 1) for step in range(5)]
    assert all(torch.equal(pixels[rows], x) for _, _, rows, x in TOLD)
    assert all(torch.equal(pixels[rows], x) and torch.equal(labels[rows], y) for rows, x, y in PIECES)
    assert [len(rows) for rows, _, _ in PIECES] == [5, 5, 5, 1] * 4 + [5, 1] + [5, 5, 5, 1] * 4 + [5, 1]


def test_validation_attacks_in_ten_quarter_steps_from_starts_that_are_the_same_every_time(blobs):
    data, model = blobs(30, seed=1), network().eval()
    threat = Threat("Linf", 0.1)
    x, y = data.pixels(slice(None)), data.labels
    start = threat.random_start(x, BlockNoise(x.device, derive(0, "validation"), 30, torch.arange(30)))
    pgd = ascend(model, x, y, threat, start=start, steps=10, step_size=0.1 / 4)
    right = (model(pgd).argmax(1) == y).float().mean().item()

    found = train.validate(model, data, threat, 16)

    assert found["pgd"] == pytest.approx(right)
    assert model.training


def test_a_checkpoint_is_due_where_so_many_minutes_have_gone_by_since_the_last(
    tmp_path: Path, make_job, subsets, monkeypatch
):
    clock, come = [0.0], list[bool]()

    def passing() -> float:
        clock[0] += 25
        return clock[0]

    def due(_group: object, time_has_come: bool) -> bool:
        come.append(time_has_come)
        return time_has_come

    monkeypatch.setattr("advbench.train.time.monotonic", passing)
    monkeypatch.setattr(train, "due", due)
    job = make_job(training={"epochs": 2, "batch": 7, "checkpoint_minutes": 1})
    train.train(job, subsets, Spy(), network(), tmp_path / "c.pt", quiet)

    # Asked after each of ten steps but the last, which the end of the epoch follows; 75 s are more than a minute.
    assert come == [False, False, True] * 6


def test_an_epoch_is_told_with_its_accuracies_and_has_its_own_seconds(tmp_path: Path, make_job, subsets, monkeypatch):
    clock, told = [0.0], list[tuple[object, ...]]()

    def passing() -> float:
        clock[0] += 1.00049
        return clock[0]

    monkeypatch.setattr("advbench.totals.time.perf_counter", passing)
    job = make_job(training={"epochs": 2})
    history = train.train(job, subsets, Spy(), network(), tmp_path / "c.pt", lambda *news: told.append(news)).history

    assert told == [("train", e.epoch, 2, f"clean {e.clean:.3f}, PGD {e.pgd:.3f}") for e in history]
    assert [epoch.seconds for epoch in history] == [1.0, 1.0]
    assert [epoch.epoch for epoch in history] == [1, 2]


def test_a_training_that_diverges_tells_of_the_epochs_before(tmp_path: Path, make_job, subsets):
    class Breaks(Spy):
        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            return super().loss(state, x, y) * (float("nan") if state.epoch else 1)

    with pytest.raises(train.Diverged, match="the training loss is nan in epoch 2 of 3") as caught:
        train.train(make_job(), subsets, Breaks(), network(), tmp_path / "c.pt", quiet)
    assert [epoch.epoch for epoch in caught.value.history] == [1]


class Two(Group):
    """The first of two processes, of which the other one does the same."""

    def total(self, values: Sequence[float]) -> list[float]:
        return [2 * value for value in values]

    def told(self, value: Any) -> Any:
        return value

    def heard(self, value: Any) -> list[Any]:
        return [value, value]

    def average(self, gradients: Sequence[Tensor]) -> None:
        """Both have the same."""


def test_one_of_two_processes_has_its_part_of_each_batch_and_tells_of_both(
    tmp_path: Path, make_job, blobs, monkeypatch
):
    """92 examples in batches of 5: 18 whole ones; the last one has too few for two."""
    met: list[tuple[object, ...]] = []
    asked: list[int] = []

    class Part(Spy):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            noise = state.noise
            met.append((len(x), state.weight, noise.rank, noise.world, noise.rows, noise.size))
            return super().step(state, x, y)

    def due(_group: object, _come: bool) -> bool:
        asked.append(len(met))
        return False

    monkeypatch.setattr(train, "due", due)
    sets = Subsets(blobs(92), blobs(30, seed=1), blobs(10, seed=2))
    job = make_job(training={"epochs": 1, "batch": 5})

    [epoch] = train.train(job, sets, Part(), network(), tmp_path / "c.pt", quiet, Two(0, 2)).history

    assert met == [(2, 2 * 2 / 5, 0, 2, slice(0, 2), 5)] * 18
    assert asked == [1, 17], "after every sixteenth step"
    assert (epoch.forward, epoch.extra) == (2 * 18 * 2, {"processes": 2})
