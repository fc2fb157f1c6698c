"""All that a training depends on is in its checkpoint, and each process of a group takes from it what is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import checkpoint
from advbench.average import averaged
from advbench.checkpoint import Progress, due, resume, save
from advbench.defense import TrainState
from advbench.parallel import ALONE
from advbench.plan import Job
from advbench.seal import keep
from advbench.seeds import Stream, derive, generator
from advbench.threat import Threat

CPU = torch.device("cpu")
Make = Callable[..., Job]


def state(seed: int = 0, **fields: Any) -> TrainState:
    """A training after two steps of its own."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    average = averaged(model, 0.5)
    made = TrainState(model, optimizer, Threat("Linf", 0.1), Stream(generator("cpu", seed)), average=average, **fields)
    for _ in range(2):
        model(torch.rand(4, 3)).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)
    made.noise.uniform(torch.zeros(3))
    return made


def all_of(made: TrainState) -> list[Any]:
    """What a training goes on from, and what it draws next."""
    assert made.average is not None
    tensors = [*made.model.state_dict().values(), *made.average.state_dict().values()]
    moments = [value for one in made.optimizer.state_dict()["state"].values() for value in one.values()]
    draws = [made.noise.uniform(torch.zeros(5)), torch.rand(5)]
    return [value.tolist() for value in (*tensors, *moments, *draws)]


def test_a_training_that_has_not_begun_has_done_nothing_and_found_nothing() -> None:
    nothing = {"epoch": 0, "step": 0, "loss_sum": 0, "forward": 0, "backward": 0, "seconds": 0, "stopped": False}
    tables: dict[str, Any] = {name: {} for name in ("reports", "best", "healthy", "along", "notes", "turns")}

    assert vars(Progress()) == nothing | tables | {"history": [], "best_epoch": -1, "best_key": (-1, -1)}


def test_a_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, make_job: Make) -> None:
    before = state()
    save(tmp_path / "c.pt", make_job(), CPU, before, Progress(epoch=1, best_key=(0.5, 0.25)))
    expected = all_of(before)

    fresh, at = state(seed=1), Progress()
    assert resume(tmp_path / "c.pt", make_job(), CPU, fresh, at)
    assert all_of(fresh) == expected
    assert at.best_key == (0.5, 0.25)
    assert isinstance(at.best_key, tuple), "two keys are compared"


class Member:
    """The second of three processes, beside a first one that says `content`."""

    first, rank, world = False, 2, 3

    def __init__(self, content: bytes | None = None, told: bool = False, come: bool = False) -> None:
        self.content, self.answer, self.said = content, [float(told), float(come)], list[Any]()

    def told(self, value: Any) -> Any:
        assert value is None, "it reads nothing itself"
        return self.content

    def total(self, values: list[Any]) -> list[float]:
        self.said.append(values)
        return self.answer


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of `notice`, of which none is given here."""
    calls: list[str] = []
    stands_in = SimpleNamespace(
        given=lambda: False, give=lambda: calls.append("give"), leave=lambda: calls.append("leave")
    )
    monkeypatch.setattr(checkpoint, "notice", stands_in)
    return calls


def test_another_process_takes_the_same_weights_and_dropout_of_its_own(tmp_path: Path, make_job: Make) -> None:
    before = state()
    save(tmp_path / "c.pt", make_job(), CPU, before, Progress(epoch=4, step=5))
    *expected, _ = all_of(before)
    member: Any = Member((tmp_path / "c.pt").read_bytes())

    fresh = state(seed=1, group=member)
    assert resume(tmp_path / "absent.pt", make_job(), CPU, fresh, Progress())
    *found, draws = all_of(fresh)
    assert found == expected
    torch.manual_seed(derive(0, "dropout", 4, 2, 5))
    assert draws == torch.rand(5).tolist()


def test_only_the_first_process_writes_and_all_leave_where_one_is_asked_to(
    tmp_path: Path, make_job: Make, heard: list[str]
) -> None:
    member: Any = Member(told=True)
    save(tmp_path / "c.pt", make_job(), CPU, state(group=member), Progress())
    assert heard == ["give", "leave"]
    assert not (tmp_path / "c.pt").exists()

    save(tmp_path / "c.pt", make_job(), CPU, state(), Progress())
    assert heard == ["give", "leave", "leave"], "once it is written"
    assert (tmp_path / "c.pt").exists()


@pytest.mark.parametrize(("told", "come"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_checkpoint_is_due_by_the_first_clock_or_by_anybody_s_notice(
    heard: list[str], told: bool, come: bool
) -> None:
    member: Any = Member(told=told, come=come)

    assert due(member, True) is (told or come)
    assert heard == ["give"] * told
    assert member.said == [[False, False]], "its own clock decides nothing"
    assert due(ALONE, come) is come


def test_memory_that_is_refused_is_told_in_one_line(tmp_path: Path, make_job: Make) -> None:
    made = state(memory={"net": nn.Linear(1, 1)})
    with pytest.raises(TypeError) as caught:
        save(tmp_path / "c.pt", make_job(), CPU, made, Progress())

    [line] = str(caught.value).splitlines()
    assert line.split(": ")[0].endswith("or a checkpoint cannot be read back")
    assert "load" in line.partition(": ")[2], "torch's own first words"


class Bomb:
    """What a pickle may do to who reads it."""

    gone: list[int] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return Bomb.gone.append, (1,)


def test_reading_runs_nothing_and_asks_for_all_that_a_checkpoint_has(tmp_path: Path, make_job: Make) -> None:
    save(tmp_path / "c.pt", make_job(), CPU, state(), Progress(epoch=1))
    content = torch.load(tmp_path / "c.pt", weights_only=True)

    def resumed(**changes: Any) -> bool:
        changed = {**content, **changes}
        if changed["memory"] is None:
            del changed["memory"]  # of an earlier version
        torch.save(changed, tmp_path / "bare.pt")
        keep(tmp_path / "changed.pt", (tmp_path / "bare.pt").read_bytes())
        return resume(tmp_path / "changed.pt", make_job(), CPU, state(), Progress())

    assert resumed()
    assert not resumed(memory=None)
    assert not resumed(memory={"bomb": Bomb()})
    assert Bomb.gone == []


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        ({}, True),
        ({"a": {"every": 1}}, True),
        ({"a": {"every": 1}, "b": {"every": 2}}, True),
        ({"a": {"every": 3}}, False),
        ({"a": {"every": 1}, "c": {}}, False),
    ],
)
def test_a_history_is_taken_over_where_it_has_what_is_asked_and_the_rest_is_left_out(
    tmp_path: Path, make_job: Make, asked: dict[str, Any], taken: bool
) -> None:
    history: list[dict[str, Any]] = [
        {"epoch": 1, "measures": {"a": {"x": 1.0}}, "collect_seconds": 2.0},
        {"epoch": 2, "measures": {"a": {"x": 3.0}, "b": {"y": 4.0}}, "collect_seconds": 5.0},
        {"epoch": 3},
    ]
    notes = {"a": {"found": "of a"}, "b": {"found": "of b"}}
    along = {"a": {"every": 1}, "b": {"every": 2}}
    save(tmp_path / "c.pt", make_job(), CPU, state(), Progress(history=history, along=along, notes=notes))

    at = Progress(along=asked)
    assert resume(tmp_path / "c.pt", make_job(), CPU, state(), at) == taken
    assert at.along == asked
    if taken:
        assert at.notes == {name: notes[name] for name in asked}
        left = [{name: v for name, v in line.get("measures", {}).items() if name in asked} for line in history]
        assert at.history == [
            {"epoch": line["epoch"]} | ({"measures": kept, "collect_seconds": line["collect_seconds"]} if kept else {})
            for line, kept in zip(history, left, strict=True)
        ]


def test_tensors_of_the_memory_are_where_the_training_is(tmp_path: Path, make_job: Make) -> None:
    save(tmp_path / "c.pt", make_job(), CPU, state(memory={"x": torch.ones(2)}), Progress())
    fresh = state(memory={"old": 1})
    assert resume(tmp_path / "c.pt", make_job(), CPU, fresh, Progress())

    kept: Tensor = fresh.memory["x"]
    assert (list(fresh.memory), kept.tolist(), kept.device) == (["x"], [1, 1], CPU)
    save(tmp_path / "c.pt", make_job(), CPU, state(), Progress())
    assert resume(tmp_path / "c.pt", make_job(), CPU, fresh, Progress())
    assert fresh.memory == {}
