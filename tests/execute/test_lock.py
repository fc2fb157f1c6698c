"""One run at a time in a folder, and a lock that no crash leaves behind."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from advbench.execute import lock
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
        told = json.loads((tmp_path / "runs" / "lock").read_text(encoding="utf-8"))
    assert set(told) == {"pid", "host", "since", "started"}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", told["since"])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()

    told = "file/x: cannot be written: Not a directory; choose another"
    with pytest.raises(BadInput, match=told), locked(tmp_path / "file" / "x"):
        pass


NO_LOCKS = """\
import errno, fcntl
def flock(*_):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
"""


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that has no locks."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)


@pytest.fixture
def lockless_holder(tmp_path: Path, command_env: dict[str, str]):
    """Another process that holds tmp_path where there are no locks."""
    process = subprocess.Popen(
        [sys.executable, "-c", NO_LOCKS + HOLDER, str(tmp_path)], env=command_env, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_without_locks_a_second_process_is_told_who_holds_it(tmp_path: Path, no_locks, lockless_holder):
    with pytest.raises(BadInput) as refused, locked(tmp_path):
        pass

    [line] = refused.value.lines
    who = f"process {lockless_holder.pid} on {platform.node()} since 20"
    assert line.startswith(f"{tmp_path}: in use by another run ({who}")
    assert line.endswith(f"if that process has gone, remove {tmp_path / 'runs' / 'lock.held'}")


def test_without_locks_that_of_a_killed_process_is_taken_over(tmp_path: Path, no_locks, lockless_holder):
    lockless_holder.kill()
    lockless_holder.wait()

    with locked(tmp_path):
        assert held(tmp_path)["pid"] == os.getpid()
        with pytest.raises(BadInput, match=f"process {os.getpid()} on"), locked(tmp_path):
            pass
    assert not (tmp_path / "runs" / "lock.held").exists()


def held(results: Path) -> dict[str, object]:
    return json.loads((results / "runs" / "lock.held").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("change", "free"),
    [
        ({"started": "1"}, True),  # the number was given again, to this very process
        ({"since": "2999-01-01T00:00:00+00:00"}, False),  # the clock went back since; it decides nothing
        ({"host": "elsewhere"}, False),
        ({"host": "elsewhere", "pid": 2**22 + 1}, False),  # its processes cannot be seen from here
        ({"pid": 2**22 + 1}, True),
        ({"pid": "?"}, False),
    ],
)
def test_without_locks_a_holder_is_gone_when_it_is_known_to_be(tmp_path: Path, no_locks, change, free):
    with locked(tmp_path):
        told = held(tmp_path)
    (tmp_path / "runs" / "lock.held").write_text(json.dumps(told | change), encoding="utf-8")

    if free:
        with locked(tmp_path):
            assert held(tmp_path)["started"] == told["started"]
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["lock"]
    else:
        with pytest.raises(BadInput, match="in use by another run"), locked(tmp_path):
            pass


def test_without_locks_a_new_holder_s_file_that_was_taken_for_a_killed_one_s_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "lock.held"
    file.write_text("of the faster one", encoding="utf-8")
    looks = iter([True, False])  # between the two looks it was replaced
    monkeypatch.setattr(lock, "_stale", lambda _: next(looks))
    lock._clear(file)
    assert [(path, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [(file, "of the faster one")]


def test_without_locks_one_that_somebody_removed_is_given_back_all_the_same(tmp_path: Path, no_locks):
    with locked(tmp_path):
        (tmp_path / "runs" / "lock.held").unlink()


def test_without_locks_of_many_that_find_a_killed_one_s_one_gets_it(tmp_path: Path, no_locks, lockless_holder):
    lockless_holder.kill()
    lockless_holder.wait()
    race = """\
import sys, time
from pathlib import Path
from advbench.execute.lock import locked
from advbench.spec import BadInput
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    with locked(Path(sys.argv[1])):
        print("got it")
        time.sleep(2)
except BadInput:
    pass
"""
    start = str(time.time() + 1.5)
    runs = [
        subprocess.Popen([sys.executable, "-c", NO_LOCKS + race, str(tmp_path), start], stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [run.communicate()[0] for run in runs].count(b"got it\n") == 1
