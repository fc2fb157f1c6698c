"""Worker processes: who takes which job, what survives a death, and that their number changes no verdict."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from advbench.execute import local
from advbench.execute.lock import locked
from advbench.files import alive
from advbench.plan import Item, order, record_folder, run_folder
from advbench.record import Record, load
from advbench.resolve import resolve
from advbench.stable import stable

pytestmark = pytest.mark.slow

TALKS = """\
import itertools, os, time
from advbench.defense import Defense
from advbench.losses import cross_entropy

class Talks(Defense):
    name = "talks"
    paper = "a test"
    pause: float = 0
    hangs: bool = False

    def passes(self):
        return 1, 1

    def loss(self, state, x, y):
        print("pid", os.getpid(), flush=True)
        if self.hangs:
            sum(itertools.repeat(0))  # in C code, which lets no other thread run
        time.sleep(self.pause)
        noisy = (x + 0.1 * state.noise.uniform(x)).clamp(0, 1)
        return cross_entropy(state.model(noisy), y).mean()
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, tiny):
    """A task of two defenses and two seeds: its folder, and its plan with costs that put them in a known order."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "talks.py").write_text(TALKS, encoding="utf-8")
    more = '[[defense]]\nname = "standard"\nlabel = "plain"\n'
    path = tiny(
        folder,
        "t",
        ("seeds = [0]", "seeds = [0, 1]"),
        ('name = "standard"', 'file = "talks.py"'),
        ('attacks = ["fgsm"]', 'attacks = ["fgsm", "pgd"]\nblock = 10'),
        more=more,
    )
    items = resolve(path, folder / "data", {}).items
    return folder, [item.model_copy(update={"seconds": cost}) for item, cost in zip(items, (3, 1, 2, 4), strict=True)]


def work(bench, results: Path, workers: int, on_event=None) -> tuple[list[Record], list[local.Event]]:
    folder, items = bench
    events: list[local.Event] = []

    def hear(event: local.Event) -> None:
        events.append(event)
        if on_event:
            on_event(event)

    ended = local.run(items, results, folder / "data", ["cpu"] * workers, hear)
    return [load(record_folder(results, job.path) / "record.json") for job in ended], events


def pids(results: Path, item: Item) -> set[int]:
    """The processes that worked on a job, from what its defense printed."""
    log = run_folder(results, item.path) / "log.txt"
    return {int(line.split()[1]) for line in log.read_text(encoding="utf-8").splitlines()}


@pytest.fixture(scope="module")
def alone(bench, tmp_path_factory: pytest.TempPathFactory):
    """The plan done by one worker at a time: results, records, events, and the processes that it took."""
    results = tmp_path_factory.mktemp("alone")
    started: list[int | None] = []

    class Counted(local.Worker):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(self.process.pid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "Worker", Counted)
        return results, *work(bench, results, 1), started


@pytest.fixture(scope="module")
def pair(bench, tmp_path_factory: pytest.TempPathFactory):
    """The plan done by two workers."""
    results = tmp_path_factory.mktemp("pair")
    return results, *work(bench, results, 2)


def test_the_cheapest_job_goes_first_and_then_the_longest(bench, alone):
    started = [event.item.path for event in alone[2] if event.stage == "start"]

    assert started == [item.path for item in order(bench[1])]
    assert started == ["t/talks-s1", "t/plain-s1", "t/talks-s0", "t/plain-s0"]


def test_each_job_starts_reports_and_ends_once(bench, pair):
    for item in bench[1]:
        stages = [event.stage for event in pair[2] if event.item.path == item.path]
        assert stages[0] == "start"
        assert stages[-1] == "ok"
        assert {"train", "evaluate"} == set(stages[1:-1])


def test_a_worker_takes_one_job_after_another_until_it_has_run_a_stranger_s_file(bench, alone):
    results, started = alone[0], alone[3]
    talking = [item for item in bench[1] if item.label == "talks"]
    used = [pids(results, item) for item in talking]

    # talks | plain talks | plain: what a file may have changed in its process meets no other job.
    assert len(started) == 3
    assert all(len(processes) == 1 for processes in used)
    assert set.union(*used) == set(started[:2])


def test_the_number_of_workers_changes_no_record_and_no_byte_beside_it(alone, pair):
    assert len(alone[1]) == 4
    # The digests of examples.parquet and adversarial.safetensors are a part of the record.
    assert all(set(r.files) == {"examples.parquet", "adversarial.safetensors"} for r in alone[1])
    one, two = ({f"{r.label}-s{r.seed}": stable(r) for r in records} for records in (alone[1], pair[1]))
    assert one == two


def test_a_worker_that_dies_between_two_jobs_is_replaced(bench, tmp_path: Path):
    def kill_after_the_first(event: local.Event) -> None:
        if event.stage == "ok" and event.item.path == "t/talks-s1":
            [worker] = multiprocessing.active_children()
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.join()

    records, _ = work(bench, tmp_path, 1, kill_after_the_first)

    assert [record.status for record in records] == ["ok"] * 4
    first, other = (pids(tmp_path, item) for item in bench[1][1::-1])
    assert first != other


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker is no fork")
def test_where_the_process_that_workers_are_forked_from_dies_only_the_job_of_that_moment_fails(bench, tmp_path: Path):
    killed: list[str] = []

    def kill_the_server(event: local.Event) -> None:
        if event.stage == "train" and not killed:
            [worker] = multiprocessing.active_children()
            stat = Path(f"/proc/{worker.pid}/stat").read_text(encoding="utf-8")
            os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
            killed.append(event.item.label)

    records, _ = work(bench, tmp_path, 1, kill_the_server)

    # Those who are forked from it end with it; the next worker comes from a new one.
    assert [(record.label, record.status) for record in records] == [
        *((killed[0], "failed"), ("plain", "ok"), ("talks", "ok"), ("plain", "ok")),
    ]
    assert records[0].reason.startswith("the worker process ended: ")


def test_an_interrupt_ends_the_workers_and_is_raised_again(bench, tmp_path: Path):
    def interrupt(event: local.Event) -> None:
        if event.stage == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(bench, tmp_path, 2, interrupt)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("does", ["pause = 0.05", "hangs = true"])
def test_workers_end_with_a_killed_driver_and_the_folder_is_free(tmp_path: Path, tiny, command_env, does: str):
    (tmp_path / "talks.py").write_text(TALKS, encoding="utf-8")
    tiny(tmp_path, "t", ("epochs = 1", "epochs = 1000"), ('name = "standard"', f'file = "talks.py"\n{does}'))
    results = tmp_path / "results"
    log = results / "runs" / "t" / "talks-s0" / "log.txt"
    command = [sys.executable, "-m", "advbench", "run", "t.toml"]
    driver = subprocess.Popen(command, cwd=tmp_path, env=command_env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    [worker] = {int(line.split()[1]) for line in log.read_text(encoding="utf-8").splitlines()}
    assert alive(worker)
    driver.kill()
    driver.wait()

    with locked(results):
        killed = time.monotonic()
        try:
            while alive(worker):
                assert time.monotonic() - killed < 5, "the worker goes on without its driver"
                time.sleep(0.1)
        finally:
            if alive(worker):
                os.kill(worker, signal.SIGKILL)


class Speaks:
    """A worker's view of a process with one more message, or with none where it has died."""

    exitcode, helps, why, ready, device = -9, False, "", True, "cpu"

    def __init__(self, item: Item, *words: Any) -> None:
        self.item, self.started, self.process, self.connection, self.words = item, 0.0, self, self, words

    def end(self) -> None:
        self.item = None

    def recv(self) -> tuple[Any, ...]:
        if not self.words:
            raise EOFError
        return self.words

    def join(self, timeout: float) -> None:
        del timeout


def test_a_worker_that_dies_after_its_last_write_has_done_its_job(bench, alone):
    results, item = alone[0], bench[1][0]
    record = load(record_folder(results, item.path) / "record.json")

    events: list[local.Event] = []
    driver = local._Driver([], results, Path(), [], events.append)
    driver._hear(Speaks(item))  # type: ignore[arg-type]
    assert driver.ended == [(item.path, "ok", "")]
    assert [event.stage for event in events] == ["ok"]
    assert load(record_folder(results, item.path) / "record.json") == record


def test_the_driver_keeps_less_than_a_kilobyte_of_a_job_that_has_ended(bench, alone):
    results, item, count = alone[0], bench[1][0], 2000
    assert (record_folder(results, item.path) / "record.json").stat().st_size > 2000
    driver = local._Driver([], results, Path(), [], lambda _: None)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(count):
        driver._hear(Speaks(item, "ok", 0, 0, "clean 95.0%, robust 40.0%"))  # type: ignore[arg-type]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(driver.ended) == count
    assert peak - before < 1000 * count


def test_a_job_of_two_processes_trains_on_two_workers_and_gives_the_second_back(bench, tmp_path: Path):
    folder, items = bench
    # The most expensive job is started second, after the cheapest, and has to wait for it.
    shared = max(items, key=lambda item: item.seconds)
    plan = [item.model_copy(update={"processes": 2}) if item is shared else item for item in items]
    (shared_item,) = [item for item in plan if item.processes == 2]
    running: set[str] = set()
    beside: list[set[str]] = []
    most, began, training = 0, False, False

    def hear(event: local.Event) -> None:
        nonlocal most, began, training
        if event.item is shared_item:
            began = True
            training = event.stage in ("start", "train")
        if event.stage == "start":
            running.add(event.item.path)
            most = max(most, len(running)) if began and not training else most
            if training:
                beside.append(running - {shared.path})
        elif event.stage in ("ok", "failed"):
            running.discard(event.item.path)

    records = local.run(plan, tmp_path, folder / "data", ["cpu"] * 2, hear)

    assert {record.status for record in records} == {"ok"}
    assert beside == [set()]
    assert most == 2
    assert len(records) == len(items)
    # One worker is all there is: the job runs all the same.
    alone = local.run([shared.model_copy(update={"processes": 2})], tmp_path / "one", folder / "data", ["cpu"], hear)
    assert [record.status for record in alone] == ["ok"]
