"""DAT: several processes are one, what they share and what they must not, and its layer-wise steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import find
from advbench.data.base import Examples
from advbench.defense import TrainState
from advbench.losses import cross_entropy
from advbench.parallel import ALONE, Group
from advbench.recipe import Training
from advbench.seeds import Stream, generator
from advbench.spec import BadInput
from advbench.threat import Threat

DAT = find.defense(find.shipped("baselines") / "dat.py")
TRAINING = Training(epochs=1, lr=0.02, weight_decay=1e-4)
BATCH = 23
"""Odd: two processes have unequal parts."""


def network(*, norm: bool = False) -> nn.Module:
    torch.manual_seed(0)
    # No bias before batch norm: its gradient is a rounding error, which layer-wise steps blow up.
    layers = [
        nn.Conv2d(1, 4, 3, bias=not norm),
        *([nn.BatchNorm2d(4)] if norm else []),
        nn.Softplus(),
        nn.Flatten(),
        nn.Linear(64, 3),
    ]
    return nn.Sequential(*layers).double()


def batch(step: int) -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(step)
    return torch.rand(BATCH, 1, 6, 6, dtype=torch.float64, generator=draws), torch.randint(3, (BATCH,), generator=draws)


def made(**fields: Any) -> Any:
    return find.build(DAT, {"steps": 3, **fields})


def ready(defense: Any, model: nn.Module, group: Group = ALONE) -> TrainState:
    noise = Stream(generator("cpu", 0, "attack"))
    state = TrainState(model.train(), defense.optimizer(model, TRAINING), Threat("Linf", 0.1), noise, group=group)
    if group.world > 1:
        noise.share(group.rank, group.world, group.rows(BATCH), BATCH)
        state.weight = group.weight(BATCH)
    if defense.unlabelled != "none":
        pool = torch.rand(40, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
        state.unlabelled = Examples(pool, torch.full((40,), -1), torch.arange(40), 255)
    defense.prepare(state)
    return state


def trained(defense: Any, steps: int, group: Group = ALONE, *, norm: bool = False) -> tuple[TrainState, list[float]]:
    state = ready(defense, network(norm=norm), group)
    losses: list[float] = []
    for number in range(steps):
        rows = group.rows(BATCH)
        x, y = (part[rows] for part in batch(number))
        loss = defense.step(state, x, y)
        losses.append(group.total([float(loss) * len(x)])[0] / BATCH)
    return state, losses


def weights(state: TrainState) -> Tensor:
    return torch.cat([p.detach().flatten() for p in state.model.parameters()])


KINDS: dict[str, dict[str, Any]] = {
    "lamb": {},
    "task": {"layerwise": "none"},
    "fgsm": {"attack": "fgsm", "clean_weight": 0.5, "layerwise": "lars"},
    "agree": {"unlabelled": "agree", "unlabelled_ratio": 0.5},
}


def shared(group: Group) -> dict[str, Any]:
    """Ten steps of each kind, and of quantised gradients, in one of several processes."""
    found: dict[str, Any] = {}
    for name, fields in KINDS.items():
        state, losses = trained(made(**fields), 10, group)
        found[name] = {"weights": weights(state), "losses": losses}
    state, _ = trained(made(gradients="int8"), 10, group)
    found["int8"] = weights(state)
    found["extra"] = {name: float(value) for name, value in state.report.items()}
    synchronised, _ = trained(made(sync_bn=True), 10, group, norm=True)
    local, _ = trained(made(), 10, group, norm=True)
    for name, one in (("sync", synchronised), ("local", local)):
        found[name] = {"weights": weights(one), "mean": dict(one.model.named_buffers())["1.running_mean"]}
    starts = Threat("Linf", 0.1).random_start(torch.full((BATCH, 1, 6, 6), 0.5)[group.rows(BATCH)], state.noise)
    found["starts"] = starts
    return found


@pytest.fixture(scope="module")
def two(ranks) -> list[dict[str, Any]]:
    return ranks(shared, 2)


@pytest.mark.parametrize("name", KINDS)
def test_two_processes_are_one(two, name: str):
    state, losses = trained(made(**KINDS[name]), 10)

    for rank in two:
        torch.testing.assert_close(rank[name]["weights"], weights(state), rtol=0, atol=1e-9)
        assert rank[name]["losses"] == pytest.approx(losses, abs=1e-9)


def test_all_processes_have_the_same_weights_to_the_last_bit(two):
    one, other = two
    for name in KINDS:
        assert torch.equal(one[name]["weights"], other[name]["weights"])
    assert torch.equal(one["int8"], other["int8"])
    # Rounded gradients are others, and their steps too.
    assert not torch.equal(one["int8"], one["lamb"]["weights"])


def test_no_two_processes_begin_an_attack_at_the_same_points(two):
    starts = torch.cat([rank["starts"] for rank in two]).flatten(1)

    assert len(starts) == BATCH
    assert len(starts.unique(dim=0)) == BATCH
    assert len(starts.unique()) > 0.99 * starts.numel()


def test_batch_norm_is_each_ones_own_unless_it_is_synchronised(two):
    one, other = two
    assert torch.equal(one["sync"]["mean"], other["sync"]["mean"])
    assert not torch.equal(one["local"]["mean"], other["local"]["mean"])
    assert torch.equal(one["local"]["weights"], other["local"]["weights"])
    # Over the whole batch the two are one process with ordinary batch norm.
    state, _ = trained(made(), 10, norm=True)
    torch.testing.assert_close(one["sync"]["weights"], weights(state), rtol=0, atol=1e-9)


def test_the_history_says_what_was_sent_and_where_the_time_went(two):
    extra = two[0]["extra"]
    entries = len(weights(ready(made(), network())))

    assert entries < 512  # one bucket, padded for each of the two processes
    assert extra["bytes_sent"] == 2 * (512 + 4)
    assert all(extra[f"{part}_seconds"] > 0 for part in ("attack", "compute", "communication"))


@pytest.mark.parametrize(("layerwise", "decay"), [("lamb", 1e-4), ("lamb", 0.0), ("lars", 0.0)])
def test_every_layer_steps_by_its_own_length(layerwise: str, decay: float):
    defense, model = made(layerwise=layerwise), network()
    state = ready(defense, model)
    state.optimizer = defense.optimizer(model, TRAINING.model_copy(update={"weight_decay": decay}))
    before = [p.detach().clone() for p in model.parameters()]

    defense.step(state, *batch(0))

    for old, new in zip(before, model.parameters(), strict=True):
        assert float((new.detach() - old).norm() / old.norm()) == pytest.approx(TRAINING.lr, rel=1e-5)


def test_the_loss_is_the_adversarial_one_and_so_much_of_the_clean_one():
    x, y = batch(0)
    found = {}
    for weight in (0.0, 1.0, 2.5):
        defense = made(clean_weight=weight)
        found[weight] = defense.loss(ready(defense, network()), x, y)
    clean = cross_entropy(network()(x), y).mean()

    assert found[0.0] > clean  # three steps of ascent
    for weight in (1.0, 2.5):
        torch.testing.assert_close(found[weight], found[0.0] + weight * clean)


class Certain(nn.Module):
    """Logits that are the image's first three pixels, times ten."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1)[:, :3]


@pytest.mark.parametrize("kind", ["pseudo", "agree"])
def test_an_unlabelled_image_should_stay_what_the_model_says_of_it(kind: str):
    x, y = batch(0)
    defense = made(unlabelled=kind, unlabelled_ratio=0.5, clean_weight=0, attack_bn="eval")
    state = ready(defense, Certain())
    assert state.unlabelled is not None
    pool = state.unlabelled.pixels(slice(None))
    state.threat = Threat("Linf", 1e-9)  # no attack: the loss is that of clean images

    draws = torch.Generator()
    draws.set_state(state.noise.generator.get_state())
    loss = defense.loss(state, x, y)

    Stream(draws).uniform(x)
    rows = torch.randint(40, (round(BATCH / 2),), generator=draws)
    logits = 10 * pool[rows].flatten(1)[:, :3]
    log = logits.log_softmax(1)
    theirs = -log.amax(1) if kind == "pseudo" else -(log.exp() * log).sum(1)
    ours = cross_entropy(10 * x.flatten(1)[:, :3], y)
    torch.testing.assert_close(loss, torch.cat([ours, theirs]).mean(), rtol=1e-6, atol=0)


def test_the_attack_leaves_batch_norm_alone():
    defense, model = made(), network(norm=True)
    state = ready(defense, model)

    defense.step(state, *batch(0))

    # The clean and the adversarial forward pass of the update, and none of the attack's.
    assert int(dict(model.named_buffers())["1.num_batches_tracked"]) == 2


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"processes": 0}, "processes: should be greater than or equal to 1"),
        ({"processes": 4097}, "processes: should be less than or equal to 4096"),
        ({"unlabelled_ratio": 16.1}, "unlabelled_ratio: should be less than or equal to 16"),
        ({"processes": 2.5}, "processes: should be a valid integer"),
        ({"gradients": "int4"}, "gradients: should be 'none', 'bf16' or 'int8'"),
        ({"clean_weight": -1}, "clean_weight: should be greater than or equal to 0"),
        ({"worker": 2}, "no field 'worker'"),
    ],
)
def test_a_field_out_of_range_is_told(fields: dict[str, Any], complaint: str):
    with pytest.raises(BadInput, match=complaint):
        made(**fields)


def test_more_processes_than_the_machine_has_is_said_in_the_plan(tmp_path: Path, tiny, command):
    task = tiny(tmp_path, "t", ('name = "standard"', 'name = "dat"\nprocesses = 999'), ("batch = 16", "batch = 4096"))
    answer = command(tmp_path, "run", task, "--data-root", "data", "--dry-run", "--device", "cpu")

    assert answer.returncode == 0
    assert "is shared by 999 processes, and there" in " ".join(answer.stdout.split())
    done = command(tmp_path, "run", task, "--data-root", "data", "--device", "cpu")
    assert done.returncode == 2
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ('name = "dat"\nunlabelled = "agree"', 'defense[0] "dat": needs unlabelled images'),
        ('name = "dat"\nprocesses = 9', 'defense[0] "dat": 9 processes share a batch of 16'),
    ],
)
def test_a_task_that_lacks_what_it_needs_is_refused_in_a_line(tmp_path: Path, tiny, command, fields, complaint):
    task = tiny(tmp_path, "t", ('name = "standard"', fields))
    answer = command(tmp_path, "run", task, "--data-root", "data")

    assert answer.returncode == 2
    assert complaint in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
