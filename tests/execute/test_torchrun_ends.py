"""SIGINT and SIGTERM to a launcher and to its processes: all end together, after a checkpoint, and say so once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pair import said, suite

Started = Callable[[Path], list[subprocess.Popen[str]]]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [[0], [1, 0]])
def test_an_interrupt_ends_all_and_is_told_as_one(tmp_path: Path, tiny, started: Started, ranks: list[int]):
    processes = started(suite(tmp_path, tiny, "pause = 0.1", epochs=1000))
    for rank in ranks:
        processes[rank].send_signal(signal.SIGINT)

    codes = [process.wait(100) for process in processes]
    assert codes == [130, 130 if 1 in ranks else 1], said(tmp_path, 0) + said(tmp_path, 1)
    assert "interrupted; nothing is lost" in said(tmp_path, 0)
    assert "Traceback" not in said(tmp_path, 0)
    assert list((tmp_path / "results").rglob("record.json")) == []


def checkpointed(folder: Path, results: str) -> int:
    """Steps that the checkpoint of the job holds; an epoch of 58 examples has four."""
    at = torch.load(folder / results / "runs" / "t" / "pair-s0" / "checkpoint.pt", weights_only=True)["at"]
    return 4 * at["epoch"] + at["step"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ranks", [pytest.param([0], marks=pytest.mark.slow), pytest.param([1], marks=pytest.mark.slow), [1, 0]]
)
def test_sigterm_to_any_of_them_ends_all_after_a_checkpoint(tmp_path: Path, tiny, started: Started, ranks: list[int]):
    processes = started(suite(tmp_path, tiny, "pause = 0.1", epochs=1000))
    asked = time.monotonic()
    for rank in ranks:
        processes[rank].terminate()

    codes = [process.wait(100) for process in processes]
    assert time.monotonic() - asked < 10
    assert codes == [143, -signal.SIGTERM], said(tmp_path, 0) + said(tmp_path, 1)
    assert "interrupted; nothing is lost" in said(tmp_path, 0)
    assert "Traceback" not in said(tmp_path, 0) + said(tmp_path, 1)
    assert list((tmp_path / "results").rglob("record.json")) == []
    assert checkpointed(tmp_path, "results") == said(tmp_path, 0).count("in epoch") == said(tmp_path, 1).count("in ep")


@pytest.mark.slow
def test_a_job_that_takes_too_long_ends_all_after_a_checkpoint(tmp_path: Path, tiny, started: Started):
    more = "[resources]\nminutes = 0.4\n"  # a busy machine has begun to train by then
    processes = started(suite(tmp_path, tiny, "pause = 0.1", more, epochs=1000))

    codes = [process.wait(100) for process in processes]
    assert codes == [143, -signal.SIGTERM], said(tmp_path, 0) + said(tmp_path, 1)
    assert "advbench: t/pair-s0: took more than 0.4 minutes; raise resources.minutes or" in said(tmp_path, 0)
    assert list((tmp_path / "results").rglob("record.json")) == []
    assert checkpointed(tmp_path, "results") == said(tmp_path, 0).count("in epoch") == said(tmp_path, 1).count("in ep")


@pytest.mark.slow
def test_a_launcher_that_is_asked_to_end_lets_all_finish_their_checkpoint(tmp_path: Path, tiny, command_env, launched):
    task = suite(tmp_path, tiny, "pause = 0.1", epochs=6)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "advbench"]
    job = ["run", str(task), "--data-root", "data", "--results", "launched", "--device", "cpu"]
    env = command_env | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"}
    with (tmp_path / "0.txt").open("w", encoding="utf-8") as out:
        process = subprocess.Popen([*launcher, *job], cwd=tmp_path, env=env, stdout=out, stderr=out)
    with process:
        deadline = time.monotonic() + 400
        while said(tmp_path, 0).count("in epoch") < 4:
            assert time.monotonic() < deadline, said(tmp_path, 0)
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) != 0
    assert "interrupted; nothing is lost" in said(tmp_path, 0)
    assert list((tmp_path / "launched").rglob("record.json")) == []
    assert 2 * checkpointed(tmp_path, "launched") == said(tmp_path, 0).count("in epoch")

    answer = launched(tmp_path, task)
    assert answer.returncode == 0, answer.stderr
    assert said(tmp_path, 0).count("in epoch") + answer.stdout.count("in epoch") == 2 * 6 * 4
