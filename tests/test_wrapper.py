"""A defense around another one: examples met twice, weights that come back, and tables in tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import find, train
from advbench.attacks.pgd import input_gradient
from advbench.data.subsets import Subsets
from advbench.defense import Defense, TrainState
from advbench.parallel import ALONE, Group
from advbench.passes import counting
from advbench.plan import Item, Job
from advbench.resolve import resolve
from advbench.run import attempt
from advbench.seeds import Stream, generator
from advbench.spec import BadInput, validate
from advbench.threat import Threat
from advbench.wrapper import Crafted, Wrapper, restored

BASELINES = find.shipped("baselines")


def defense(name: str, **fields: Any) -> Defense:
    return find.defended(find.defense(BASELINES / f"{name}.py"), fields, BASELINES)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


@pytest.fixture
def state() -> TrainState:
    model = network()
    return TrainState(
        model.train(), torch.optim.SGD(model.parameters(), 0.1), Threat("Linf", 0.1), Stream(generator("cpu", 7))
    )


@pytest.fixture
def batch(blobs: Any) -> tuple[Tensor, Tensor]:
    data = blobs(12)
    return data.pixels(slice(None)), data.labels


@pytest.mark.parametrize("name", ["fast_at", "pgd_at", "dynamic_at", "trades", "mart"])
def test_other_weights_meet_the_same_examples_and_pay_for_no_attack(name: str, state: TrainState, batch: Any):
    x, y = batch
    base, crafted, met = defense(name), Crafted(state), list[Tensor]()
    state.model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach().clone()))

    with crafted.first():
        base.backward(state, x, y)
    attacked, after = met[-1], state.noise.generator.get_state()
    met.clear()
    with torch.no_grad():
        for weight in state.model.parameters():
            weight.mul_(-1)
    with crafted.again(), counting(state.model) as passes:
        base.backward(state, x, y)

    assert not torch.equal(attacked, x)
    assert torch.equal(met[-1], attacked)
    assert (passes.forward / 12, passes.backward / 12) == base.weight_passes()
    assert torch.equal(state.noise.generator.get_state(), after), "what is drawn next is what would have been"
    with crafted.again():
        assert all(torch.equal(input_gradient(state.model, x, y), kept) for kept in crafted.gradients)
        with pytest.raises(RuntimeError, match="takes more gradients"):
            input_gradient(state.model, x, y)
    # Behind the block an attack is made again.
    assert not torch.equal(input_gradient(state.model, x, y), crafted.gradients[0])


def test_the_step_that_a_wrapper_must_write_is_not_guessed(state: TrainState, batch: Any):
    class Bare(Wrapper):
        name = "bare"

    with pytest.raises(NotImplementedError):
        Bare().step(state, *batch)


def test_what_was_moved_comes_back_also_where_the_block_fails(state: TrainState, batch: Any):
    model = state.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = [p.data_ptr() for p in model.parameters()]

    def elsewhere() -> None:
        with restored([*model.parameters(), *model.buffers()]), torch.no_grad():
            model(batch[0])
            for weight in model.parameters():
                weight.add_(1e-3).mul_(3)
            raise RuntimeError("oh")

    with pytest.raises(RuntimeError, match="oh"):
        elsewhere()

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [p.data_ptr() for p in model.parameters()] == places, "the optimizer holds these very tensors"


def test_short_of_memory_it_goes_on_in_pieces_from_the_same_weights(
    tmp_path: Path, make_job: Any, blobs: Any, monkeypatch: pytest.MonkeyPatch
):
    """The device runs out in the second pass, when the weights are elsewhere."""
    sets = Subsets(train=blobs(32), validation=blobs(12, seed=1), test=blobs(3, seed=2))
    job = make_job(training={"epochs": 1, "batch": 32, "lr": 0.05})
    made = defense("awp", base={"name": "dynamic-at"})
    calls, told = list[int](), list[str]()
    kind, loss = type(made.base), type(made.base).loss

    def short(self: Any, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        calls.append(len(x))
        if calls == [32, 32]:
            raise torch.OutOfMemoryError("none left")
        return loss(self, state, x, y)

    monkeypatch.setattr(kind, "loss", short)
    found = train.train(job, sets, made, plain(), tmp_path / "a.pt", lambda *news: told.append(news[-1]))
    whole = train.train(job, sets, made, plain(), tmp_path / "b.pt", lambda *news: None)

    assert calls[:6] == [32, 32, 16, 16, 16, 16]
    assert "out of device memory: going on with 16 examples at a time" in told
    assert found.engine.micro_batch == 16
    for name, value in whole.last.items():
        torch.testing.assert_close(found.last[name], value, rtol=0, atol=1e-6)


def plain() -> nn.Module:
    """Without batch norm, whose statistics are those of a piece."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 3))


def test_it_is_as_its_base_is(make_job: Any):
    adam = make_job(training={"epochs": 1, "optimizer": "adam"}).training
    for name in ("standard", "pgd-at", "dynamic-at", "fast-bat"):
        base = defense(name.replace("-", "_"))
        made = defense("awp", base={"name": name})

        assert (made.norms, made.adversarial) == (base.norms, base.adversarial)
        assert (made.workers(), made.needs()) == (1, ())
        assert isinstance(made.optimizer(network(), adam), torch.optim.Adam)
    assert defense("awp") == defense("awp", base={"name": "pgd-at"}) == type(defense("awp"))()
    assert isinstance(defense("awp"), Wrapper)


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        ({"name": "trads"}, [".base: no defense 'trads'; did you mean 'trades'?"]),
        ({"name": "trades", "betta": 5}, [".base: no field 'betta'; did you mean 'beta'?"]),
        ({"name": "trades", "steps": 0}, [".base: steps: should be greater than or equal to 1, not 0"]),
        ({"beta": 5}, [".base: should have a name or a file, and only one of them"]),
        ({"name": "trades", "label": "x"}, [".base: label stands beside the name of the outer defense"]),
        ({"name": "trades", "collect": {}}, [".base: collect stands beside the name of the outer defense"]),
        ({"name": "trades", "training": {}}, [".base: training stands beside the name of the outer defense"]),
        ("trades", [".base: should be a table, base = { name = \"pgd-at\" }, not 'trades'"]),
        ({"name": "awp"}, [".base: awp has a step of its own, and so has awp: only one can own the update"]),
        ({"name": "dat"}, [".base: dat has a step of its own, and so has awp: only one can own the update"]),
        ({"name": "awp", "base": {"name": "x"}}, [".base.base: no defense 'x'"]),
        ({"file": "none.py"}, [".base: "]),
    ],
)
def test_a_base_that_is_none_is_told_why(written: Any, lines: list[str]):
    with pytest.raises(BadInput) as caught:
        defense("awp", base=written)
    with pytest.raises(BadInput) as both:
        defense("awp", base=written, gamma=-1.0)

    assert len(caught.value.lines) == 1
    assert caught.value.lines[0].startswith(lines[0])
    assert both.value.lines == ("gamma: should be greater than or equal to 0, not -1.0", *caught.value.lines)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a defense of one's own."""
    text = (BASELINES / "pgd_at.py").read_text(encoding="utf-8")
    (tmp_path / "mine.py").write_text(text.replace('"pgd-at"', '"mine"'), encoding="utf-8")
    return tmp_path


@pytest.fixture
def lines(tiny: Any, folder: Path) -> Callable[..., list[Item]]:
    def make(more: str, *changes: tuple[str, str]) -> list[Item]:
        task = tiny(folder, "mine", *changes, more=f'\n[[defense]]\nname = "awp"\n{more}\n')
        return resolve(task, folder / "data", {}).items

    return make


def job_of(items: list[Item]) -> Job:
    job = next(item.job for item in items if item.label == "awp")
    assert isinstance(job, Job)
    return job


def test_a_job_knows_its_base_by_bytes_and_fields_and_not_by_place(folder: Path, lines: Any):
    job = job_of(lines('base = { file = "mine.py", steps = 3 }'))
    inside = job.defense["base"]

    assert inside == {
        "name": "mine",
        "file": "mine.py",
        "sha256": find.digest(folder / "mine.py"),
        "steps": 3,
        "step_size": 0.25,
        "attack_bn": "train",
    }
    made = find.job_defense(validate(Job, job.plain()), folder)
    assert find.defense_table(made, {"base": {"file": "mine.py"}}) == job.defense
    assert job_of(lines('base = { file = "mine.py", steps = 4 }')).id != job.id
    shutil.copy(folder / "mine.py", folder / "other.py")
    assert job_of(lines('base = { file = "other.py", steps = 3 }')).id == job.id
    assert job_of(lines("")).id == job_of(lines('base = { name = "pgd-at" }')).id
    with (folder / "mine.py").open("a", encoding="utf-8") as file:
        file.write("# explained\n")
    assert job_of(lines('base = { file = "mine.py", steps = 3 }')).id == job.id
    with (folder / "mine.py").open("a", encoding="utf-8") as file:
        file.write("EDITED = True\n")
    assert job_of(lines('base = { file = "mine.py", steps = 3 }')).id != job.id
    with pytest.raises(BadInput, match=r"mine\.py: changed since the plan was made"):
        find.job_defense(job, folder)
    (folder / "mine.py").unlink()
    with pytest.raises(BadInput, match=r"mine\.py: cannot be read"):
        find.job_defense(job, folder)


@pytest.mark.parametrize(
    ("table", "file"),
    [('base = { file = "mine.py" }', "mine.py"), ("", "pgd_at.py"), ('base = { name = "mart" }', "mart.py")],
)
def test_a_plan_is_made_again_when_the_base_changes(folder: Path, tiny: Any, table: str, file: str):
    task = tiny(folder, "mine", more=f'\n[[defense]]\nname = "awp"\n{table}\n')

    watched = resolve(task, folder / "data", {}).watched

    assert {"awp.py", file} <= {path.name for path in watched}


def test_a_task_says_where_in_it_a_base_is_wrong_and_a_right_one_trains(folder: Path, lines: Any):
    with pytest.raises(BadInput, match=r'defense\[1\] "awp"\.base: no defense \'trads\'; did you mean \'trades\'\?'):
        lines('base = { name = "trads" }')
    item = next(i for i in lines('base = { name = "trades", beta = 5 }') if i.label == "awp")

    record = attempt(item, folder / "results", folder / "data", torch.device("cpu"), lambda *_: None)

    assert record.error is None
    assert record.job["defense"]["base"]["beta"] == 5
    assert {"rise", "divergence"} <= record.history[0].extra.keys()
    # Outside its base's norms it is skipped.
    skipped = lines('base = { name = "dynamic-at" }', ('norm = "Linf"', 'norm = "L1"'))
    assert {i.label: i.skip for i in skipped} == {"standard": "", "awp": "awp is not defined for L1"}


def together(group: Group) -> dict[str, list[Tensor]]:
    """The weights after three steps of each wrapper, of this process's part of every batch."""
    found: dict[str, list[Tensor]] = {}
    draw = torch.Generator().manual_seed(0)
    x, y = torch.rand(11, 1, 8, 8, generator=draw, dtype=torch.float64), torch.arange(11) % 3
    rows = group.rows(len(x))
    for name in ("awp", "sam_at", "entropy_sgd"):
        made = defense(name, **({"inner_steps": 2, "noise": 0.1} if name == "entropy_sgd" else {}))
        model = plain().double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        state = TrainState(model, optimizer, Threat("Linf", 0.1), Stream(generator("cpu", 7)), group=group)
        for _ in range(3):
            if group.world > 1:
                state.noise.share(group.rank, group.world, rows, len(x))
                state.weight = group.weight(len(x))
            made.step(state, x[rows], y[rows])
        found[name] = [weight.detach().clone() for weight in model.parameters()]
    return found


@pytest.mark.slow
def test_around_a_base_that_shares_its_training_two_processes_are_one(ranks: Any):
    alone = together(ALONE)

    first, second = ranks(together, 2)

    for name, weights in alone.items():
        for whole, one, other in zip(weights, first[name], second[name], strict=True):
            torch.testing.assert_close(one, whole, rtol=0, atol=1e-9)
            assert torch.equal(one, other), name
