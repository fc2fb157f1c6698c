"""One job's evaluation by several workers: who helps whom, the same verdicts, and a helper or its job that dies."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from slow_attack import SLOW

from advbench import machine
from advbench.execute import local, spread
from advbench.plan import Item, record_folder, run_folder
from advbench.record import load
from advbench.resolve import resolve
from advbench.stable import stable

LADDER = 'attacks = ["fgsm", { file = "slow.py" }]\nblock = 4\ncurve = ["1/20"]\nalone = 8'


def plan(folder: Path, tiny) -> Item:
    """A job of 32 test examples in 8 blocks, with an attack that says who runs it."""
    (folder / "slow.py").write_text(SLOW, encoding="utf-8")
    task = tiny(folder, "t", ("epochs = 1", "epochs = 6"), ('attacks = ["fgsm"]', LADDER))
    [item] = resolve(task, folder / "data", {}).items
    return item


def work(item: Item, folder: Path, workers: int, on_event=lambda _: None):
    [job] = local.run([item], folder / "results", folder / "data", ["cpu"] * workers, on_event)
    return [load(record_folder(folder / "results", job.path) / "record.json")]


def who(folder: Path, item: Item) -> Counter[int]:
    """How often each process ran the slow attack."""
    log = run_folder(folder / "results", item.path) / "log.txt"
    return Counter(int(line.split()[1]) for line in log.read_text("utf-8").splitlines() if line.startswith("pid"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Help comes as soon as an evaluation has begun, and the first block waits for it."""
    monkeypatch.setattr(spread, "LONG", 0.0)
    monkeypatch.setenv("PAIR", str(tmp_path))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, tiny):
    folder = tmp_path_factory.mktemp("alone")
    item = plan(folder, tiny)
    [record] = work(item, folder, 1)
    assert record.status == "ok"
    assert len(who(folder, item)) == 1
    return item, record, who(folder, item)


@pytest.mark.slow
def test_an_idle_worker_takes_blocks_and_changes_no_verdict(alone, tmp_path: Path, tiny, at_once):
    item, record, calls = alone
    [shared] = work(plan(tmp_path, tiny), tmp_path, 2)

    found = who(tmp_path, item)
    assert len(found) == 2
    assert found.total() == calls.total()  # no block was attacked twice
    # The digests of the table of examples and of the images are a part of it.
    assert stable(shared) == stable(record)


@pytest.mark.slow
def test_a_helper_that_is_killed_costs_nothing(alone, tmp_path: Path, tiny, at_once):
    item, record, _ = alone
    killed: list[int] = []

    def hear(event: local.Event) -> None:
        if event.stage == "evaluate" and not killed and len(who(tmp_path, item)) == 2:
            [helper] = [worker.process.pid for worker in drivers[0].workers if worker.helps]
            os.kill(helper or 0, signal.SIGKILL)
            killed.append(helper or 0)

    drivers: list[local._Driver] = []

    class Kept(local._Driver):
        def __init__(self, *args) -> None:
            super().__init__(*args)
            drivers.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "_Driver", Kept)
        [shared] = work(plan(tmp_path, tiny), tmp_path, 2, hear)

    assert killed
    assert stable(shared) == stable(record)


@pytest.mark.slow
def test_when_a_job_dies_its_helper_stops_and_the_next_run_takes_over_what_both_did(
    alone, tmp_path: Path, tiny, at_once, monkeypatch: pytest.MonkeyPatch
):
    item, record, calls = alone

    def hear(event: local.Event) -> None:
        if event.stage == "evaluate" and len(found := who(tmp_path, item)) == 2:
            os.kill(next(iter(found)), signal.SIGKILL)  # who began

    asked = plan(tmp_path, tiny)
    [dead] = work(asked, tmp_path, 2, hear)
    assert dead.status == "failed"
    assert "SIGKILL" in dead.reason
    before = who(tmp_path, item)
    time.sleep(0.5)
    assert who(tmp_path, item) == before

    monkeypatch.delenv("PAIR")
    [again] = work(asked, tmp_path, 1)
    assert stable(again) == stable(record)
    # What one of them had on hand when it ended is attacked again, no more.
    assert calls.total() <= who(tmp_path, item).total() <= calls.total() + 2
    assert load(record_folder(tmp_path / "results", item.path) / "record.json").status == "ok"


class Busy:
    """A worker with a job, as far as who wants help is asked of it."""

    def __init__(self, item: Item | None, seconds: float | None = 60, *, helps: bool = False) -> None:
        self.item, self.helps, self.why, self.device = item, helps, "", "cpu"
        self.attacking = None if seconds is None else time.monotonic() - seconds


def test_help_goes_where_most_is_left_for_each_and_never_where_there_is_nothing(tmp_path: Path, tiny):
    eight = plan(tmp_path, tiny)
    assert eight.job is not None
    assert eight.work is not None

    todo = eight.work

    def cut(label: str, examples: int, **changes: object) -> Item:
        return eight.model_copy(update={"label": label, "work": todo.model_copy(update={"test": examples}), **changes})

    three, one = cut("three", 12), cut("one", 4)
    assert [spread.blocks(item) for item in (eight, three, one)] == [8, 3, 1]
    asked = spread.Spread()

    def wanting(*workers: Busy) -> str | None:
        found = asked.wanting(workers)  # type: ignore[arg-type]
        return found.item.label if found and found.item else None

    assert wanting(Busy(one), Busy(three), Busy(eight)) == "standard"
    helpers = [Busy(eight, helps=True)] * 2
    assert wanting(Busy(three), Busy(eight), *helpers) == "three"  # 3 for one, 8 for three
    assert wanting(Busy(eight, None), Busy(three, 5), Busy(one)) is None  # it trains; it has just begun; one block
    assert wanting(Busy(three), *[Busy(three, helps=True)] * 2) is None  # one block each
    assert wanting(Busy(cut("shared", 32, processes=2))) is None  # its own processes share it
    asked.done(Busy(eight, helps=True))  # type: ignore[arg-type]
    assert wanting(Busy(eight)) is None


def test_a_device_of_another_kind_does_not_help(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "device_name", {"cuda:0": "A", "cuda:1": "A", "cuda:2": "B"}.__getitem__)

    assert spread.Spread.alike("cuda:0", "cuda:1")
    assert not spread.Spread.alike("cuda:0", "cuda:2")


def test_a_job_has_as_many_pieces_as_its_examples_fill_blocks(make_job):
    class Todo:
        test = 9

    def pieces(**fields: object) -> int:
        made: dict[str, Any] = {"job": make_job(evaluation={"block": 4}), "work": Todo(), "processes": 1, **fields}
        return spread.blocks(Item.model_construct(**made))

    assert pieces() == 3
    assert pieces(work=None) == pieces(job=None) == pieces(processes=2) == 1


def test_help_comes_after_ten_seconds_to_who_has_the_most_blocks_a_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(spread.time, "monotonic", lambda: 100.0)
    monkeypatch.setattr(spread, "blocks", lambda item: item.seed)

    def busy(label: str, count: int, since: float | None = 50.0, **fields: object) -> Busy:
        one = Busy(Item(task="t", label=label, seed=count, base=Path()))
        one.attacking = since
        vars(one).update(fields)
        return one

    def helped(*workers: Busy) -> str | None:
        found = spread.Spread().wanting(workers)  # type: ignore[arg-type]
        return found.item.label if found and found.item else None

    def with_helpers(owner: Busy, count: int) -> list[Busy]:
        return [owner, *(Busy(owner.item, helps=True) for _ in range(count))]

    assert helped(busy("a", 2)) == "a"
    assert helped(busy("a", 1)) is None
    assert helped(busy("a", 8, 90.0)) is None  # ten seconds, and not more
    assert helped(busy("a", 8, 89.9)) == "a"
    assert helped(busy("a", 8, None), Busy(None)) is None
    assert helped(busy("a", 8, why="took too long")) is None
    assert helped(busy("a", 3), busy("b", 8), busy("c", 8)) == "b"  # the first of two alike
    assert helped(*with_helpers(busy("a", 8), 1), busy("b", 3)) == "a"  # 4 and 3 for each
    assert helped(*with_helpers(busy("a", 8), 1), busy("b", 5)) == "b"  # 4 and 5
    assert helped(*with_helpers(busy("a", 3), 1), busy("b", 1)) == "a"
    assert helped(*with_helpers(busy("a", 3), 2)) is None


def test_a_device_is_always_like_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "device_name", lambda _: pytest.fail("nobody has to ask"))
    assert spread.Spread.alike("cuda:0", "cuda:0") is True
