"""What is asked for, what can run here and on which devices: tables of cases, with the machine put in by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from advbench import agenda, machine, resolve, task
from advbench.execute.torchrun import Place
from advbench.experiment import Experiment
from advbench.index import Cost, Entry, Index
from advbench.learn import Learned
from advbench.machine import Means
from advbench.plan import Item, Job, Resolved
from advbench.spec import BadInput

Make = Callable[..., Job]
TWO = Means(("cuda:0", "cuda:1"), 8)
NONE = Means((), 4)


def line(label: str, job: Job | Experiment | None = None, **fields: Any) -> Item:
    return Item(task="t", label=label, seed=0, base=Path(), job=job, **fields)


def study(**fields: Any) -> Experiment:
    asked: dict[str, Any] = {"task": "t", "title": "T", "seed": 0, "study": {"name": "s"}, "threads": 1}
    return Experiment.model_construct(**asked | fields)


def unasked(*_: object) -> Any:
    raise AssertionError("nobody has to know that")


def test_without_paths_it_is_the_folder_s_own_tasks_or_the_starter_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    starter = task.files([task.shipped("tasks")])

    assert starter
    assert agenda.files([]) == starter
    with pytest.raises(BadInput, match="tasks: no such file or folder; leave it out for the starter suite"):
        agenda.files([Path("tasks")])
    Path("tasks").mkdir()
    assert agenda.files([]) == starter
    for name in ("tasks/a.toml", "tasks/b.toml", "c.toml"):
        Path(name).touch()
    assert agenda.files([]) == agenda.files([Path("tasks")]) == [Path("tasks/a.toml"), Path("tasks/b.toml")]
    assert agenda.files([Path("c.toml")]) == [Path("c.toml")]


@pytest.mark.parametrize(
    ("device", "here", "chosen"),
    [
        ("cpu", ["cuda:0", "cuda:1"], "cpu"),
        ("auto", ["cuda:0", "cuda:1"], "cuda:0"),
        ("cuda", ["cuda:0", "cuda:1"], "cuda:0"),
        ("cuda:1", ["cuda:0", "cuda:1"], "cuda:1"),
        ("auto", [], "cpu"),
    ],
)
def test_costs_are_learned_from_jobs_on_the_device_that_would_be_taken(
    monkeypatch: pytest.MonkeyPatch, device: str, here: list[str], chosen: str
) -> None:
    monkeypatch.setattr(machine, "accelerators", lambda: here)
    monkeypatch.setattr(machine, "device_name", lambda device: device)
    costs = [
        Cost("m", name, name, 1, "d", "", "", "", 1.0, 1, 1.0, 1, 1, "", 0, 0) for name in ("cpu", *TWO.accelerators)
    ]
    known: Any = [("a", Entry("a", True, True)), *((c.data, Entry(c.data, True, True, c)) for c in costs)]

    found = agenda.learned(SimpleNamespace(all=lambda: known), device)  # type: ignore[arg-type]
    assert [data for _, data, _ in found.groups] == [chosen]


def test_where_no_record_has_a_cost_the_machine_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "accelerators", unasked)
    monkeypatch.setattr(machine, "device_name", unasked)
    known: Any = [("a", Entry("a", True, True))]

    assert agenda.learned(SimpleNamespace(all=lambda: known), "auto").groups == {}  # type: ignore[arg-type]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A function: lines of a kept plan, --only... -> the labels that are chosen."""

    def ask(items: list[Item], *only: str) -> list[str]:
        monkeypatch.setattr(agenda, "recall", lambda *_: items)
        chosen, fresh = agenda.lines([Path("t.toml")], only, tmp_path, tmp_path, Index(tmp_path), "cpu")
        assert fresh == {}
        return [item.label for item in chosen]

    return ask


def test_only_takes_what_any_pattern_means_and_each_has_to_mean_something(asked: Callable[..., list[str]]) -> None:
    some = [line("a"), line("b"), line("c")]

    assert asked(some) == ["a", "b", "c"]
    assert asked(some, "t/a") == ["a"]
    assert asked(some, "c", "a") == ["a", "c"]
    with pytest.raises(BadInput) as caught:
        asked(some, "b", "x", "y")
    assert caught.value.lines == ("--only 'x' matches no job; there are: t/a, t/b, t/c",)
    with pytest.raises(BadInput, match="two jobs are called 't/a-s0'; rename one of their task files"):
        asked([line("b"), line("a"), line("a")])


@pytest.mark.parametrize(("count", "more"), [(20, ""), (21, " and 1 more"), (23, " and 3 more")])
def test_twenty_names_are_told_and_how_many_more(asked: Callable[..., list[str]], count: int, more: str) -> None:
    names = [f"t/{n:02}" for n in range(count)]
    with pytest.raises(BadInput) as caught:
        asked([line(f"{n:02}") for n in range(count)], "x")

    assert caught.value.lines == (f"--only 'x' matches no job; there are: {', '.join(names[:20])}{more}",)


def test_what_costs_is_asked_once_for_all_files_and_all_errors_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_job: Make
) -> None:
    prices, found = Learned(), {"a": [line("a", make_job())], "b": [line("b", make_job()), line("c")]}
    told: list[Any] = []

    def resolved(file: Path, root: Path, loaded: dict[str, Any], known: Learned, means: Means | None) -> Resolved:
        told.append((known, means))
        if file.name in found:
            return Resolved(found[file.name], [tmp_path / file])
        raise BadInput(f"{file}: bad", f"{file}: worse")

    times: list[int] = []
    monkeypatch.setattr(agenda, "learned", lambda *_: times.append(1) or prices)
    monkeypatch.setattr(resolve, "resolve", resolved)
    rest: Any = ([], tmp_path, tmp_path, Index(tmp_path), "cpu", TWO)

    chosen, fresh = agenda.lines([Path("a"), Path("b")], *rest)
    assert chosen == [*found["a"], *found["b"]]
    # Of b a line has no job: tomorrow its data may have come, and no file tells.
    assert [(file, lines, watched) for file, (lines, watched, _) in fresh.items()] == [
        (Path("a"), found["a"], [tmp_path / "a"])
    ]
    assert (told, times) == ([(prices, TWO)] * 2, [1])
    with pytest.raises(BadInput) as caught:
        agenda.lines([Path("x"), Path("a"), Path("y")], *rest)
    assert caught.value.lines == ("x: bad", "x: worse", "y: bad", "y: worse")


def test_a_line_lasts_where_its_data_are_the_ones_that_were_asked_for(make_job: Make) -> None:
    jobs = [None, make_job(), study(instead=""), study(instead="mnist")]

    assert [agenda._lasting(line("a", job)) for job in jobs] == [False, True, True, False]


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Item]]:
    """A function: items, device, means -> their states, where 'done' lies in the results and has its record."""
    monkeypatch.setattr(
        agenda, "finished", lambda item, *_: item.model_copy(update={"cached": True}) if item.label == "done" else item
    )
    monkeypatch.setattr(agenda, "learned", lambda index, device: device)

    def ask(items: list[Item], device: str = "auto", means: Means | None = None, **more: Any) -> list[Item]:
        return agenda.states(items, tmp_path, Index(tmp_path), device, means, **more)

    return ask


def test_what_is_done_is_cached_and_only_what_is_left_has_a_price(
    states: Callable[..., list[Item]], monkeypatch: pytest.MonkeyPatch, make_job: Make
) -> None:
    monkeypatch.setattr(machine, "means", unasked)
    monkeypatch.setattr(agenda, "priced", unasked)
    done, lost, plain = line("done", make_job(accelerator=True)), line("a", skip="no data"), line("b", make_job())

    assert [item.state for item in states([done, lost])] == ["cached", "skip"]
    monkeypatch.setattr(agenda, "priced", lambda items, known: [item.label for item in items] + [known])
    assert states([done, plain, line("c", make_job(accelerator=True), skip="no data")], "cuda:1") == [
        *("done", "b", "c"),
        "cuda:1",
    ]
    assert states([line("done", make_job())], again=True) == ["done", "auto"]


@pytest.mark.parametrize(
    ("needs", "processes", "device", "means", "skip"),
    [
        (True, 1, "auto", TWO, ""),
        (True, 2, "cuda", TWO, ""),
        (True, 1, "auto", NONE, "needs an accelerator, and there is none"),
        (True, 1, "cpu", TWO, "needs an accelerator, and there is none"),
        (False, 2, "auto", TWO, ""),
        (False, 3, "auto", TWO, "is shared by 3 processes, and there are 2 accelerators; set processes to 2"),
        (False, 2, "cuda:1", TWO, "is shared by 2 processes, and there is 1 accelerator; set processes to 1"),
        (False, 3, "cpu", TWO, ""),
        (False, 4, "auto", NONE, ""),
        (False, 5, "auto", NONE, "is shared by 5 processes, and there are 4 cores; set processes to 4"),
        (False, 2, "cpu", Means((), 1), "is shared by 2 processes, and there is 1 core; set processes to 1"),
    ],
)
def test_a_job_is_skipped_where_there_are_fewer_devices_than_it_needs(
    states: Callable[..., list[Item]],
    monkeypatch: pytest.MonkeyPatch,
    make_job: Make,
    needs: bool,
    processes: int,
    device: str,
    means: Means,
    skip: str,
) -> None:
    monkeypatch.setattr(agenda, "priced", lambda items, _: items)
    monkeypatch.setattr(machine, "means", lambda asked: means if asked == device else unasked())
    item = line("a", make_job(accelerator=needs), processes=processes)

    for given in (means, None):  # of others, or of this machine
        [found] = states([item], device, given)
        assert found == item.model_copy(update={"skip": skip})


@pytest.mark.parametrize(
    ("processes", "skip"),
    [(1, ""), (3, ""), (2, "is shared by 2 processes, and 3 were started; start as many")],
)
def test_under_a_launcher_it_is_its_processes_that_count(
    states: Callable[..., list[Item]], monkeypatch: pytest.MonkeyPatch, make_job: Make, processes: int, skip: str
) -> None:
    monkeypatch.setattr(agenda, "priced", lambda items, _: items)
    monkeypatch.setattr(agenda, "place", lambda: Place(0, 3, 0))
    [found] = states([line("a", make_job(accelerator=True), processes=processes)], "cuda:0", TWO)

    assert found.skip == skip


@pytest.mark.parametrize(
    ("device", "jobs", "threads", "per_device", "means", "workers"),
    [
        ("auto", None, [1], None, TWO, ["cuda:0", "cuda:1"]),
        ("auto", None, [1], 2, TWO, ["cuda:0", "cuda:1"] * 2),
        ("auto", 3, [1], 2, TWO, ["cuda:0", "cuda:1", "cuda:0"]),
        ("cuda", None, [1], None, TWO, ["cuda:0", "cuda:1"]),
        ("cuda:1", None, [1], 3, TWO, ["cuda:1"] * 3),
        ("cpu", None, [1], None, TWO, ["cpu"] * 8),
        ("cpu", 3, [1], None, TWO, ["cpu"] * 3),
        ("auto", None, [1], None, NONE, ["cpu"] * 4),
        ("cpu", None, [2, None, 3, 1], None, TWO, ["cpu"] * 2),  # 8 cores, of which the largest takes 3
        ("cpu", None, [9], None, TWO, ["cpu"]),
        ("cpu", None, [None], None, NONE, ["cpu"] * 4),
        ("cpu", None, [], None, NONE, ["cpu"] * 4),
    ],
)
def test_a_worker_has_a_device_or_the_cores_that_its_job_takes(
    make_job: Make, device: str, jobs: int | None, threads: list[Any], per_device: Any, means: Means, workers: list[str]
) -> None:
    items = [line(f"{n}", make_job(threads=count) if count else None) for n, count in enumerate(threads)]
    done = line("done", make_job(threads=8), cached=True)

    assert agenda.devices(device, jobs, [*items, done], per_device, means) == workers


def test_devices_are_looked_for_only_where_something_is_left(monkeypatch: pytest.MonkeyPatch, make_job: Make) -> None:
    monkeypatch.setattr(machine, "means", unasked)
    assert agenda.devices("auto", 3, [line("a", cached=True), line("b", skip="no data")]) == ["cpu"]
    monkeypatch.setattr(machine, "means", lambda device: {"auto": TWO, "cpu": NONE}[device])
    assert agenda.devices("auto", None, [line("a", make_job())]) == ["cuda:0", "cuda:1"]
    assert agenda.devices("cpu", None, [line("a", make_job())]) == ["cpu"] * 4
    # Under a launcher its processes are all there are.
    monkeypatch.setattr(agenda, "place", lambda: Place(0, 2, 0))
    assert agenda.devices("auto", 3, [line("a", make_job())], 2) == ["cuda:0"]


@pytest.mark.parametrize(
    ("device", "means", "said"),
    [
        ("cuda", NONE, "--device cuda: not on this machine, which has cpu"),
        ("cuda:2", TWO, "--device cuda:2: not on this machine, which has cpu, cuda:0, cuda:1"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device: str, means: Means, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        agenda.devices(device, None, [line("a")], None, means)
    assert caught.value.lines == (said,)
    with pytest.raises(BadInput, match="--per-device: is for accelerators, and there is none; on the CPU say --jobs"):
        agenda.devices("cpu", None, [line("a")], 2, means)
