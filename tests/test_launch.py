"""A training that several processes share: the same result, the right one blamed, and another number to go on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import HEAD
from safetensors.torch import load_file

from advbench.record import Record, load
from advbench.stable import stable

pytestmark = pytest.mark.slow

LOSS = """
    def loss(self, state, x, y):
        if self.trouble and state.epoch == 2 and state.group.rank == state.group.world - 1:
            if self.trouble == "raise":
                raise ValueError("rank one does not like epoch 2")
            if self.trouble == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.trouble == "nan":
                return state.cross_entropy(state.model(x), y) * float("nan")
            if self.trouble == "once" and not Path("trouble").exists():
                Path("trouble").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        print("rank", state.group.rank, "pid", os.getpid(), len(x), flush=True)
        time.sleep(self.pause)
        start = state.threat.random_start(x, state.noise)
        x_adv = ascend(state.model, x, y, state.threat, start=start, steps=2, step_size=state.threat.eps / 2)
        state.report["rank"] = float(state.group.rank)
        return state.cross_entropy(state.model(x_adv), y)
"""
LOOKS = "\n[collect]\nfosc = { steps = 2, every = 2 }\nupdates = {}\n"


def suite(folder: Path, tiny: Any, fields: str = "", more: str = LOOKS, **changes: str) -> Path:
    (folder / "pair.py").write_text(HEAD + LOSS, encoding="utf-8")
    replaced = {"epochs = 1": 'epochs = 4\nprecision = "fp32"', 'name = "standard"': f'file = "pair.py"\n{fields}'}
    return tiny(folder, "t", *replaced.items(), *changes.items(), more=more)


def run(folder: Path, task: Path, command: Any, results: str = "results") -> tuple[int, Record, str]:
    answer = command(folder, "run", task, "--data-root", "data", "--results", results, "--device", "cpu")
    record = load(folder / results / "records" / "t" / "pair-s0" / "record.json")
    return answer.returncode, record, answer.stdout + answer.stderr


def last(folder: Path, results: str = "results") -> dict[str, torch.Tensor]:
    return load_file(folder / results / "runs" / "t" / "pair-s0" / "last.safetensors")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny, command):
    """The suite run once, by two processes: its folder and record."""
    folder = tmp_path_factory.mktemp("whole")
    code, record, _ = run(folder, suite(folder, tiny), command)
    assert code == 0
    return folder, record


def test_two_processes_share_every_batch_and_leave_one_record(whole):
    folder, record = whole

    log = (folder / "results" / "runs" / "t" / "pair-s0" / "log.txt").read_text(encoding="utf-8").splitlines()
    lines = [line.split() for line in log if line.startswith("rank")]
    assert {line[1] for line in lines} == {"0", "1"}
    assert len({line[3] for line in lines}) == 2
    assert {line[4] for line in lines} == {"8", "5"}  # of batches of 16 and the 10 that are left
    assert record.status == "ok"
    assert record.provenance["processes"] == 2
    assert len(record.history) == 4
    for epoch in record.history:
        # Both ranks' passes over 58 training examples: 3 batches of 16, and 10 that are left.
        assert (epoch.forward, epoch.backward) == (3 * 58, 3 * 58)
        # The mean over examples of their rank: the second process has 8 of every 16, and 5 of the last 10.
        assert epoch.extra["processes"] == 2
        assert epoch.extra["rank"] == pytest.approx((3 * 8 + 5) / 58)
        # The first process has looked, and its looks are nobody's passes.
        assert set(epoch.measures or {}) == ({"updates"} if epoch.epoch % 2 else {"fosc", "updates"})
    assert len(record.measure_notes["fosc"]) == 2


def test_the_same_again_is_the_same(whole, tmp_path: Path, tiny, command):
    _, record = whole
    _, again, _ = run(tmp_path, suite(tmp_path, tiny), command)

    assert stable(again) == stable(record)


def test_one_process_that_nobody_looks_at_comes_to_the_same_weights(whole, tmp_path: Path, tiny, command):
    folder, record = whole
    _, alone, _ = run(tmp_path, suite(tmp_path, tiny, "processes = 1", more=""), command)

    assert "processes" not in alone.provenance
    assert [e.forward for e in alone.history] == [e.forward for e in record.history]
    for name, value in last(folder).items():
        torch.testing.assert_close(last(tmp_path)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("raise", "RankError: rank 1 of 2: ValueError: rank one does not like epoch 2"),
        pytest.param(
            "kill",
            "RankError: rank 1 of 2: its process ended: killed by signal 9 (SIGKILL)",
        ),
    ],
)
def test_a_dead_rank_ends_the_job_with_its_own_error(tmp_path: Path, tiny, command, trouble, said):
    started = time.monotonic()
    code, record, told = run(tmp_path, suite(tmp_path, tiny, f'trouble = "{trouble}"'), command)

    assert code == 1
    assert record.status == "failed"
    assert said in record.reason
    assert said in told
    assert time.monotonic() - started < 300  # nobody waited for the time limit, which is days


def test_a_loss_that_is_not_finite_in_one_rank_is_told_with_the_epochs_before(tmp_path: Path, tiny, command):
    code, record, _ = run(tmp_path, suite(tmp_path, tiny, 'trouble = "nan"'), command)

    assert code == 1
    assert record.reason == "Diverged: the training loss is nan in epoch 3 of 4"
    assert len(record.history) == 2
    assert [flag.name for flag in record.flags] == ["dead"]


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_what_some_processes_began_others_can_end(whole, tmp_path: Path, tiny, command, before: int, after: int):
    folder, record = whole
    # Killed at the beginning of the third of four epochs, by a fault that comes once.
    code, _, _ = run(tmp_path, suite(tmp_path, tiny, f'trouble = "once"\nprocesses = {before}'), command)
    assert code == 1
    kept = torch.load(tmp_path / "results" / "runs" / "t" / "pair-s0" / "checkpoint.pt", weights_only=True)["at"]

    code, resumed, _ = run(tmp_path, suite(tmp_path, tiny, f'trouble = "once"\nprocesses = {after}'), command)

    assert code == 0
    # Taken over and not done again: even the seconds are those of the first try.
    assert [e.seconds for e in resumed.history[:2]] == [line["seconds"] for line in kept["history"]]
    for mine, theirs in zip(resumed.history, record.history, strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert mine.forward == theirs.forward
        assert (mine.measures or {})["updates"] == pytest.approx((theirs.measures or {})["updates"], rel=1e-3, abs=1e-4)
    for name, value in last(folder).items():
        torch.testing.assert_close(last(tmp_path)[name], value, rtol=1e-4, atol=1e-6)


def test_ranks_end_with_the_driver(tmp_path: Path, tiny, command_env):
    task = suite(tmp_path, tiny, "pause = 0.2", **{"batch = 16": "batch = 4"})
    driver = subprocess.Popen(
        [sys.executable, "-m", "advbench", "run", task, "--data-root", "data", "--device", "cpu"],
        cwd=tmp_path,
        env=command_env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = tmp_path / "results" / "runs" / "t" / "pair-s0" / "log.txt"
    deadline = time.monotonic() + 100
    pids: set[int] = set()
    while len(pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        pids = {int(line.split()[3]) for line in lines if line.startswith("rank")}
    assert len(pids) == 2

    driver.send_signal(signal.SIGKILL)
    driver.wait(10)

    def alive(pid: int) -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return stat.exists() and ") Z " not in stat.read_text(encoding="utf-8")

    while any(map(alive, pids)) and time.monotonic() < deadline + 20:
        time.sleep(0.2)
    assert not any(map(alive, pids))
