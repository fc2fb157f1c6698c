"""What killed processes have left behind, and when a process counts as gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from advbench.files import alive, started, sweep_temporary


def test_a_process_that_has_ended_is_gone_though_nobody_has_asked_after_it(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    left = tmp_path / f".record.json.{process.pid}.tmp"
    left.touch()
    sweep_temporary([left])
    assert left.exists()
    assert alive(process.pid)
    assert started(process.pid)

    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    sweep_temporary([left])

    assert not alive(process.pid)
    assert not left.exists()
    process.communicate()
    assert started(process.pid) is None
