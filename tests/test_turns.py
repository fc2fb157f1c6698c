"""Turns: one process at a time, and a killed one's is free."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from advbench.turns import Turns

HOLDER = """\
import sys, time
from pathlib import Path
from advbench.turns import Turns
with Turns(Path(sys.argv[1])).of(3) as mine:
    print(mine, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path, command_env: dict[str, str]):
    """Another process that has piece 3."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "a" / "b" / "turns")]
    with subprocess.Popen(command, env=command_env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        yield process
        process.kill()


def got(turns: Turns, number: int, *, wait: bool = False) -> bool:
    with turns.of(number, wait=wait) as mine:
        return mine


def test_a_piece_is_one_s_at_a_time_and_free_when_its_holder_is_killed(tmp_path: Path, holder):
    turns = Turns(tmp_path / "a" / "b" / "turns")
    assert [got(turns, number) for number in (2, 3, 4)] == [True, False, True]
    with turns.of(3) as mine:
        assert not mine, "it does not wait unless it is asked to"

    holder.kill()
    assert got(turns, 3, wait=True)  # which waits for the kernel, too
    assert got(turns, 3)


def test_without_locks_everybody_has_everything_but_who_must_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def lockf(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", lockf)
    assert got(Turns(tmp_path / "turns"), 0)
    with pytest.raises(OSError, match="No locks"):
        got(Turns(tmp_path / "turns", must=True), 0)
    (tmp_path / "file").touch()
    assert got(Turns(tmp_path / "file" / "turns"), 0)  # nor where nothing can be written
    with pytest.raises(OSError, match="File exists"):
        got(Turns(tmp_path / "file" / "turns", must=True), 0)
