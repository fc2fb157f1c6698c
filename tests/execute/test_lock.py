"""One run at a time in a folder, and a lock that no crash leaves behind."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from advbench.execute.lock import locked
from advbench.spec import BadInput

HOLDER = """\
import sys, time
from pathlib import Path
from advbench.execute.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path, command_env: dict[str, str]):
    """Another process that holds tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], env=command_env, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_told_who_holds_it(tmp_path: Path, holder):
    with pytest.raises(BadInput) as refused, locked(tmp_path):
        pass

    [line] = refused.value.lines
    assert line.startswith(f"{tmp_path}: in use by another run (process {holder.pid} on {platform.node()} since 20")
    assert line.endswith("wait for it or use --results")


def test_the_lock_falls_with_a_holder_that_is_killed(tmp_path: Path, holder):
    holder.kill()
    holder.wait()

    with locked(tmp_path):
        assert f'"pid": {os.getpid()},' in (tmp_path / "runs" / "lock").read_text(encoding="utf-8")


def test_the_lock_falls_when_the_block_ends_however_it_ends(tmp_path: Path):
    with pytest.raises(RuntimeError, match="broken"), locked(tmp_path):
        raise RuntimeError("broken")

    with locked(tmp_path):
        pass


def test_a_process_holds_it_once(tmp_path: Path):
    with locked(tmp_path), pytest.raises(BadInput, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass


def test_other_folders_are_free(tmp_path: Path, holder):
    with locked(tmp_path / "other"):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 3}', "\udcff"])
def test_a_holder_killed_while_it_wrote_its_name_is_no_riddle(tmp_path: Path, content):
    with locked(tmp_path):
        # Written over in place, so that the lock stays on the same file.
        (tmp_path / "runs" / "lock").write_text(content, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(BadInput, match="a process that has not said its name"), locked(tmp_path):
            pass


def test_what_the_last_holder_wrote_is_replaced_whole(tmp_path: Path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "lock").write_text("x" * 1000, encoding="utf-8")

    with locked(tmp_path):
        assert "x" * 100 not in (tmp_path / "runs" / "lock").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()

    told = "file/x: cannot be written: Not a directory; choose another"
    with pytest.raises(BadInput, match=told), locked(tmp_path / "file" / "x"):
        pass
