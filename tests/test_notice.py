"""SIGTERM ends a process at once, or, where a checkpoint is on its way, after it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

PROCESS = """\
import sys, time
from advbench import notice
notice.GRACE = 1
notice.heed()
def wait(what):
    print(what, flush=True)
    end = time.monotonic() + 20
    while time.monotonic() < end and not notice.given():
        time.sleep(0.01)
if sys.argv[1] == "outside":
    wait("ready")
with notice.awaited():
    wait("ready")
    if sys.argv[1] == "never":
        time.sleep(20)
    print("checkpoint", flush=True)
    if sys.argv[1] == "written":
        notice.leave()
    if sys.argv[1] == "failed":
        raise RuntimeError
print("went on")
"""


@pytest.mark.parametrize(
    ("where", "said", "ended"),
    [
        ("outside", "", signal.SIGTERM),
        ("written", "checkpoint\n", signal.SIGTERM),
        ("over", "checkpoint\n", signal.SIGTERM),  # the last step was done meanwhile
        ("failed", "checkpoint\n", signal.SIGTERM),  # no error is told of when the end was asked for
        ("never", "", signal.SIGALRM),  # a step that takes longer than the notice
    ],
)
def test_it_ends_when_its_checkpoint_is_written(command_env, where, said, ended):
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, where], env=command_env, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        asked = time.monotonic()
        process.terminate()
        assert process.stdout.read() == said
        assert process.wait() == -ended
    assert time.monotonic() - asked < 10
