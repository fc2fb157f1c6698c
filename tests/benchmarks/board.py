"""What a board of 10,000 records costs: `python tests/benchmarks/board.py`.

tests/states.py makes 20 tasks of 100 labels with 5 seeds each, every record with 30 epochs of history, a table of 1,000
examples and 8 images. `advbench board` builds them twice, in processes of its own. Then a page of 500 rows and an
empty one are opened in turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import states  # noqa: E402  # beside this folder


def main(tasks: int = 20, labels: int = 100, seeds: int = 5) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay(folder / "large", tasks, labels, seeds)
        built: list[dict[str, bytes]] = []
        for turn in ("one", "two"):
            wall, cpu, peak = timed(folder / "large", folder / turn)
            built.append({path.name: path.read_bytes() for path in sorted((folder / turn).iterdir())})
            print(f"{tasks * labels * seeds:,} records: {wall:.1f} s ({cpu:.1f} s of CPU), bound 20 s; ", end="")
            print(f"{peak / 2**30:.2f} GiB, bound 1.5 GiB")
        print(f"two builds are {'byte-equal' if built[0] == built[1] else 'DIFFERENT'}")
        print(f"their page: {len(built[0]['index.html']) / 1e6:.1f} MB")
        lay(folder / "small", 1, 10, 5)
        timed(folder / "small", folder / "fifty")
        print(f"a page of 50 rows: {(folder / 'fifty' / 'index.html').stat().st_size / 1e6:.2f} MB, bound 8 MB")


def lay(results: Path, tasks: int, labels: int, seeds: int) -> None:
    """Records of every task, label and seed."""
    for task in range(tasks):
        for label in range(labels):
            for seed in range(seeds):
                robust = 0.2 + 0.6 * label / labels
                where = {"task": f"task-{task:02d}", "examples": 1_000, "epochs": 30}
                states.write(results, f"defense-{label:03d}", seed, robust, **where)


def timed(results: Path, out: Path) -> tuple[float, float, int]:
    """Seconds on the wall and of the processor, and the most bytes of memory, of `advbench board`."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "advbench", "board", str(results), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    assert not process.returncode, process.returncode
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024


if __name__ == "__main__":
    main()
