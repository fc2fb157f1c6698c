"""How long comparisons take: `python tests/benchmarks/compare.py`.

Two records of 10,000 examples by `advbench compare`, in fresh processes; then the pairwise statistics of 20 boards of
500 rows, all at once.
"""

from __future__ import annotations

import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from advbench.stats.difference import Groups, Moments
from advbench.stats.ranks import better, ranges

AFTER = """\
import time
from pathlib import Path
from advbench.compare.show import show
started = time.perf_counter()
show(Path("records/t/a-s0"), Path("records/t/a-s1"), as_json=True)
import sys
print(time.perf_counter() - started, file=sys.stderr)
"""


def rank(rows: np.ndarray, groups: list[range]) -> list[tuple[int, int]]:
    """As the board does: one matrix product of all rows, and then pairs of groups."""
    ones = rows.astype(np.float32)
    both = (ones @ ones.T).astype(float)
    last = [group[-1] for group in groups]
    return ranges(better(Groups.of(Moments.counted(both, rows.shape[1]), groups), both[np.ix_(last, last)]))


def main(repeats: int = 5) -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    lay = runpy.run_path(str(Path(__file__).parents[1] / "hand_made.py"))["lay"]
    whole: list[float] = []
    after: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in (0, 1):
            lay(Path(folder), "a", seed, rng.random(10_000) < 0.5)
        for _ in range(repeats):
            started = time.perf_counter()
            command = [sys.executable, "-m", "advbench", "compare", "records/t/a-s0", "records/t/a-s1"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            whole.append(time.perf_counter() - started)
            done = subprocess.run([sys.executable, "-c", AFTER], cwd=folder, check=True, capture_output=True, text=True)
            after.append(float(done.stderr))
    print(f"two records of 10,000 examples: {statistics.median(after):.2f} s after imports, bound 1 s")
    print(f"two records of 10,000 examples: {statistics.median(whole):.2f} s in all, bound 2 s")
    boards = rng.random((20, 500, 10_000)) < 0.5
    started = time.perf_counter()
    for rows in boards:
        rank(rows, [range(i, i + 1) for i in range(500)])
    print(f"20 boards of 500 checkpoints: {time.perf_counter() - started:.1f} s, bound 10 s")
    started = time.perf_counter()
    for rows in boards:
        rank(rows[:498], [range(i, i + 3) for i in range(0, 498, 3)])
    print(f"20 boards of 166 defenses with three seeds: {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
