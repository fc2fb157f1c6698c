"""The same command under torchrun: the same record, a dead rank, a taken port, a launcher that says half."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from pair import STANDARD, suite

from advbench.execute import torchrun
from advbench.launch import RankError
from advbench.plan import Item
from advbench.prepare import Ready
from advbench.record import load
from advbench.spec import BadInput
from advbench.stable import stable


@pytest.mark.slow
def test_a_launcher_s_processes_leave_the_records_that_the_suite_s_own_would(tmp_path: Path, tiny, command, launched):
    task = suite(tmp_path, tiny, more=STANDARD)
    there = launched(tmp_path, task)
    assert there.returncode == 0, there.stderr
    assert there.stdout.count("board: ") == 1  # one process speaks
    assert command(tmp_path, "run", task, "--data-root", "data", "--results", "here", "--device", "cpu").returncode == 0

    for label in ("pair", "standard"):
        ours, theirs = (
            load(tmp_path / results / "records" / "t" / f"{label}-s0" / "record.json")
            for results in ("here", "launched")
        )
        assert ours.status == "ok"
        assert stable(theirs) == stable(ours)


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["raise", "kill"])
def test_a_dead_rank_ends_the_run_and_the_next_one_goes_on(tmp_path: Path, tiny, launched, trouble: str):
    task = suite(tmp_path, tiny, f'trouble = "{trouble}"')
    answer = launched(tmp_path, task)

    assert answer.returncode != 0
    record = load(tmp_path / "launched" / "records" / "t" / "pair-s0" / "record.json")
    assert record.status == "failed"
    if trouble == "raise":
        assert record.reason == "RankError: rank 1 of 2: ValueError: rank one does not like epoch 1"
        assert "rank one does not like epoch 1" in answer.stdout + answer.stderr
    else:  # it could say nothing; its launcher and its neighbour do
        assert "Signal 9 (SIGKILL)" in answer.stderr
        assert record.reason == "RankError: another process ended without a word; see the launcher's output"
        again = launched(tmp_path, suite(tmp_path, tiny))
        assert again.returncode == 0, again.stderr
        assert load(tmp_path / "launched" / "records" / "t" / "pair-s0" / "record.json").status == "ok"


class Gone:
    """The group of a first process whose others have gone, or that is interrupted, as it speaks to them."""

    rank, world = 0, 2

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def told(self, value: object) -> None:
        raise self.error

    def failure(self) -> None:
        """Nobody left word."""


LOST = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (RuntimeError(LOST), RankError, "RankError: another process ended without a word; see the launcher's output"),
        (RuntimeError("its own"), RankError, "RankError: rank 0 of 2: RuntimeError: its own"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_what_breaks_the_first_word_of_a_job_breaks_the_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_job, error: BaseException, raised: type[BaseException], words
):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    crew: Any = torchrun._Crew(Gone(error), torch.device("cpu"))  # type: ignore[arg-type]
    item = Item(task="t", label="l", seed=0, base=tmp_path, job=make_job(), processes=2)

    with pytest.raises(raised) as caught:
        crew._share(tmp_path)(item, Ready(*[None] * len(dataclasses.fields(Ready))), lambda *_: None)  # type: ignore[arg-type]
    assert str(caught.value).endswith(words)
    assert crew.broken


def test_those_who_have_gone_get_no_goodbye(monkeypatch: pytest.MonkeyPatch):
    @contextlib.contextmanager
    def gone(*_: object) -> Generator[tuple[Gone, None]]:
        yield Gone(RuntimeError(LOST)), None

    monkeypatch.setattr(torchrun, "_joined", gone)
    with pytest.raises(KeyboardInterrupt), torchrun.lead(torchrun.Place(0, 2, 0), "cpu"):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_another_number_of_processes_than_the_job_says_is_told(tmp_path: Path, tiny, launched):
    answer = launched(tmp_path, suite(tmp_path, tiny, "processes = 3"))

    assert answer.returncode != 0
    assert "is shared by 3 processes, and 2 were started" in " ".join(answer.stdout.split())


def test_a_taken_port_is_one_line(tmp_path: Path, tiny, command_env):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        launcher = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        answer = subprocess.run(
            [sys.executable, "-m", "advbench", "run", suite(tmp_path, tiny), "--data-root", "data", "--device", "cpu"],
            cwd=tmp_path,
            env=command_env | launcher,
            capture_output=True,
            text=True,
            timeout=120,
        )

    assert answer.returncode == 2
    assert answer.stderr.strip().splitlines()[-1] == f"advbench: port {port} is in use; set another MASTER_PORT"


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "not MASTER_ADDR and MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "two", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "should be numbers"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "abc"}, "MASTER_PORT should be numbers"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "99999"}, "0 to 65535, not 99999"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}, "RANK should be 0 to 1, .*not 2"),
    ],
)
def test_half_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch, env: dict[str, str], complaint: str):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun.place() is None
    for name, value in env.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(BadInput, match=complaint):
        torchrun.place()


def test_one_process_is_no_launcher(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)

    assert torchrun.place() is None
