"""Defenses that hang, refuse to end, eat memory or fork: each fails alone, with one line, and nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from advbench import notice
from advbench.execute import limits, local
from advbench.files import alive
from advbench.plan import Item, record_folder, run_folder
from advbench.record import load
from advbench.resolve import resolve
from advbench.spec import BadInput

TROUBLE = """\
import itertools, os, signal, sys, time
from advbench.defense import Defense
from advbench.losses import cross_entropy

def eat():
    eaten = []
    while len(eaten) < 20:  # 2 GB, should nobody stop it
        eaten.append(os.urandom(1) * 100_000_000)
        time.sleep(0.05)
    time.sleep(60)

class Trouble(Defense):
    name = "trouble"
    paper = "a test"
    how: str = "none"

    def passes(self):
        return 1, 1

    def loss(self, state, x, y):
        print("pid", os.getpid(), flush=True)
        if self.how == "hangs":
            sum(itertools.repeat(0))  # in C code, which hears no signal and lets no other thread run
        if self.how == "stays":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        if self.how == "eats":
            eat()
        if self.how == "forks":
            for _ in range(2):
                if not os.fork():
                    print("pid", os.getpid(), flush=True)
                    eat()
            time.sleep(600)
        if self.how == "slow":
            time.sleep(0.3)
        return cross_entropy(state.model(x), y).mean()
"""
LIMITS = {
    "none": {},
    "hangs": {"minutes": 0.01},
    "stays": {"minutes": 0.01},
    "slow": {"minutes": 0.01},
    "eats": {"memory_gib": 0.8},
    "forks": {"memory_gib": 0.8},
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, tiny):
    """All of them in one run of two workers: its results and its records by label."""
    folder = tmp_path_factory.mktemp("trouble")
    (folder / "trouble.py").write_text(TROUBLE, encoding="utf-8")
    more = "".join(f'[[defense]]\nfile = "trouble.py"\nlabel = "{how}"\nhow = "{how}"\n' for how in LIMITS)
    task = tiny(folder, "t", ("epochs = 1", "epochs = 3\ncheckpoint_minutes = 60"), more=more)
    items = [
        item.model_copy(update=LIMITS.get(item.label, {}))
        for item in resolve(task, folder / "data", {}).items
        if item.label != "standard"
    ]
    exceeded = limits.exceeded

    def patient(item: Item, pid: int | None, began: float | None) -> tuple[str, float] | None:
        log = run_folder(folder / "results", item.path) / "log.txt"
        # A busy machine may need as long as it is given to get into trouble.
        there = log.exists() and log.read_text(encoding="utf-8").count("pid") >= (3 if item.label == "slow" else 1)
        return exceeded(item, pid, began) if there or not item.minutes else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "exceeded", patient)
        patch.setattr(notice, "GRACE", 5)  # for the driver: workers take what they have
        ended = local.run(items, folder / "results", folder / "data", ["cpu"] * 2, lambda _: None)
    assert len(ended) == len(items)
    records = [load(record_folder(folder / "results", item.path) / "record.json") for item in items]
    return folder, items, {record.label: record for record in records}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("hangs", "took more than 0.01 minutes; raise resources.minutes or"),
        ("stays", "took more than 0.01 minutes; raise resources.minutes or"),
        ("slow", "took more than 0.01 minutes; raise resources.minutes or"),
        ("eats", "took more than 0.8 GiB of memory; raise resources.memory_gib"),
        ("forks", "took more than 0.8 GiB of memory; raise resources.memory_gib"),
    ],
)
def test_who_takes_too_much_fails_alone_with_one_line(ended, how: str, why: str):
    _, _, records = ended

    assert records[how].status == "failed"
    assert (records[how].error or "").startswith(why)
    assert "\n" not in (records[how].error or "")
    assert records["none"].status == "ok"
    assert set(records) == set(LIMITS)


@pytest.mark.slow
def test_nothing_of_it_is_left(ended):
    folder, items, _ = ended
    for item in items:
        log = (run_folder(folder / "results", item.path) / "log.txt").read_text(encoding="utf-8")
        pids = {int(line.split()[1]) for line in log.splitlines() if line.startswith("pid")}
        assert len(pids) == (3 if item.label == "forks" else 1)
        assert not any(map(alive, pids)), item.label


@pytest.mark.slow
def test_the_notice_was_enough_for_a_checkpoint_and_the_next_run_goes_on_there(ended):
    folder, items, _ = ended
    [slow] = [item for item in items if item.label == "slow"]
    checkpoint = run_folder(folder / "results", slow.path) / "checkpoint.pt"
    at = torch.load(checkpoint, weights_only=True)["at"]
    log = checkpoint.with_name("log.txt")
    steps = log.read_text(encoding="utf-8").count("pid")
    assert at["epoch"] * 4 + at["step"] == steps > 0

    unlimited = slow.model_copy(update={"minutes": None})
    [record] = local.run([unlimited], folder / "results", folder / "data", ["cpu"], lambda _: None)
    assert record.status == "ok"
    assert log.read_text(encoding="utf-8").count("pid") == 3 * 4


def test_memory_is_that_of_a_family_and_what_they_share_counts_once():
    code = """\
import os, time
kept = os.urandom(1) * 200_000_000
child = os.fork()
if not child:
    own = os.urandom(1) * 100_000_000
    print(os.getpid(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        family = limits.family(parent.pid)
        taken, alone = limits.memory(parent.pid), limits.memory(child)
        limits.kill(family | {os.getpid(): "another process that had this number"})
    assert set(family) == {parent.pid, child}
    assert 300e6 < taken < 340e6
    assert 200e6 < alone < 240e6  # half of what both have, and its own
    assert limits.family(parent.pid) == {}


def test_limits_that_cannot_be_met_or_watched_are_bad_input(tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch):
    for line, complaint in (
        ("minutes = 0", "resources.minutes: should be greater than 0, not 0"),
        ("memory_gib = 0.1", "resources.memory_gib: should be greater than or equal to 0.25, not 0.1"),
    ):
        with pytest.raises(BadInput, match=complaint):
            resolve(tiny(tmp_path, "t", more=f"[resources]\n{line}\n"), tmp_path / "data", {})
    [item] = resolve(tiny(tmp_path, "t", more="[resources]\nmemory_gib = 2\n"), tmp_path / "data", {}).items
    monkeypatch.setattr(limits, "watched", lambda: False)
    with pytest.raises(BadInput, match="does not say what a process takes; leave it out here"):
        local.run([item], tmp_path / "results", tmp_path / "data", ["cpu"], lambda _: None)


def test_limits_are_no_part_of_a_job(tmp_path: Path, tiny):
    [free] = resolve(tiny(tmp_path, "t"), tmp_path / "data", {}).items
    more = "[resources]\nminutes = 30\nmemory_gib = 4\n"
    [limited] = resolve(tiny(tmp_path, "t", more=more), tmp_path / "data", {}).items

    assert (limited.minutes, limited.memory_gib) == (30, 4)
    assert (free.minutes, free.memory_gib) == (None, None)
    assert limited.job == free.job


def test_a_limit_below_what_torch_takes_is_said_in_one_line(tmp_path: Path, tiny, command):
    task = tiny(tmp_path, "t", more="[resources]\nmemory_gib = 0.25\n")
    answer = command(tmp_path, "run", task, "--data-root", "data", "--device", "cpu")

    assert answer.returncode == 1
    assert answer.stdout.splitlines()[-2].startswith("FAILED t/standard-s0: took more than 0.25 GiB of memory; raise")
    assert load(tmp_path / "results" / "records" / "t" / "standard-s0" / "record.json").status == "failed"


@pytest.mark.parametrize(
    ("held", "seconds", "taken", "why", "until"),
    [
        ({}, 1e9, 2**50, None, None),
        ({"minutes": 0.5}, 30.0, 2**50, None, None),
        ({"minutes": 0.5}, 30.1, 0, "took more than 0.5 minutes; raise resources.minutes or", notice.GRACE + 1),
        ({"minutes": 0.5}, None, 0, None, None),  # it has yet to begin
        ({"memory_gib": 1.5}, 1e9, 3 * 2**29, None, None),
        ({"memory_gib": 1.5}, None, 3 * 2**29 + 1, "took more than 1.5 GiB of memory; raise", 1),
        ({"minutes": 0.5, "memory_gib": 1.5}, 30.0, 2**31, "took more than 1.5 GiB of memory; raise", 1),
    ],
)
def test_a_limit_may_be_met_and_not_passed(
    monkeypatch: pytest.MonkeyPatch, held: dict[str, Any], seconds: float | None, taken: int, why: str | None, until
):
    monkeypatch.setattr(limits.time, "monotonic", lambda: 1000.0)
    monkeypatch.setattr(limits, "memory", lambda pid: taken if pid == 5 else 0)
    item = Item(task="t", label="l", seed=0, base=Path(), **held)
    found = limits.exceeded(item, 5, None if seconds is None else 1000 - seconds)
    assert (found is None) == (why is None)
    if found and why:
        assert found[0].startswith(why)
        assert found[1] == until


def test_memory_is_what_is_its_own_and_swapped_of_all_but_who_asks(monkeypatch: pytest.MonkeyPatch):
    mine = os.getpid()
    of = {5: (3, 5, 7), 6: (11, 0, 0), mine: (13, 0, 0)}
    text = "Rss: 90 kB\nPss: 80 kB\nPss_Anon: {} kB\nPss_File: 70 kB\nPss_Shmem: {} kB\nSwapPss: {} kB\n"
    told = {f"/proc/{pid}/smaps_rollup": text.format(*parts) for pid, parts in of.items()}

    def read(self: Path, encoding: str) -> str:
        if str(self) not in told:
            raise FileNotFoundError  # it has ended
        return told[str(self)]

    monkeypatch.setattr(limits, "family", lambda pid: dict.fromkeys([pid, 6, 9, mine]))
    monkeypatch.setattr(Path, "read_text", read)
    assert limits.memory(5) == 1024 * (3 + 5 + 7 + 11)
    assert limits.memory(mine) == 1024 * (13 + 11)
    assert limits.memory(9) == 1024 * 11


def test_who_is_killed_is_who_was_meant(monkeypatch: pytest.MonkeyPatch):
    killed: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        killed.append((pid, number))
        if pid == 1:
            raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(limits, "started", {1: "a", 2: "b", 3: "c", 4: None}.get)
    limits.kill({1: "a", 2: "z", 3: "c", 4: None, 5: "e"})
    assert killed == [(1, signal.SIGKILL), (3, signal.SIGKILL)]


def test_there_is_no_family_of_nobody_and_of_one_that_has_ended():
    assert limits.family(None) == {}
    assert limits.family(2**22 + 1) == {}


@pytest.mark.parametrize("watched", [True, False])
def test_one_job_with_a_limit_of_memory_needs_a_machine_that_tells(monkeypatch: pytest.MonkeyPatch, watched: bool):
    monkeypatch.setattr(limits, "watched", lambda: watched)
    free, timed = (Item(task="t", label="l", seed=0, base=Path(), minutes=minutes) for minutes in (None, 1.0))
    limits.refuse([free, timed])
    items = [free, timed.model_copy(update={"memory_gib": 1.0})]
    if watched:
        limits.refuse(items)
    else:
        with pytest.raises(BadInput, match="does not say what a process takes"):
            limits.refuse(items)
