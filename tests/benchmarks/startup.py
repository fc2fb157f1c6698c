"""How long a person waits before anything happens: `python tests/benchmarks/startup.py`.

Prints the median time of `advbench --help` beside that of an empty Python, and of a run that finds every job done.
The runs alternate, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from planning import write_data

TASK = """\
version = 1
title = "Tiny"
data = { name = "npz", path = "tiny.npz" }
model = { name = "linear" }
threat = { norm = "Linf", eps = "1/10" }
training = { epochs = 1 }
evaluation = { attacks = ["fgsm"] }
defense = [{ name = "standard" }]
"""


def main(repeats: int = 11) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        (folder / "tiny.toml").write_text(TASK, encoding="utf-8")
        run = ["-m", "advbench", "run", "tiny.toml", "--data-root", "."]
        commands = {
            "python -c pass": ["-c", "pass"],
            "advbench --help": ["-m", "advbench", "--help"],
            "cached run": run,
        }
        subprocess.run([sys.executable, *run], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(repeats):
            for name, arguments in commands.items():
                started = time.perf_counter()
                subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:16} {seconds:6.3f} s  {seconds / medians['python -c pass']:6.1f} x an empty Python")
    print("target: advbench --help under 0.4 s on an idle machine")


if __name__ == "__main__":
    main()
