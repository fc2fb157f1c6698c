"""What workers are forked from: it has loaded all and begun nothing.

pyarrow's allocator has a thread that lets go of memory, which jemalloc stops before a fork and starts again after it.
"""

from __future__ import annotations

import subprocess
import sys

CODE = """
import os, signal, sys
from pathlib import Path
import advbench.execute.preloaded
import torch
print("advbench.run" in sys.modules, "advbench.launch" in sys.modules, "advbench.verdicts" in sys.modules)
threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
print(len([name for name in threads if name != "jemalloc_bg_thd"]) or 1)
print(torch.cuda.is_initialized())
print(signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, flush=True)
if not os.fork():
    print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
    os._exit(0)
os.wait()
"""


def test_it_has_loaded_what_a_worker_needs_and_has_neither_threads_nor_an_accelerator(command_env: dict[str, str]):
    env = command_env | {"OMP_NUM_THREADS": "1"}
    said = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == ["True True True", "1", "False", "True", "True"]
