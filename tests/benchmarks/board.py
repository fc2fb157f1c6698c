"""What a board of 10,000 records costs: `python tests/benchmarks/board.py`.

tests/states.py makes 20 tasks of 100 labels with 5 seeds each, every record with 30 epochs of history, a table of 1,000
examples and 8 images. `advbench board` builds them twice, in processes of its own. Then a page with a table of 500
rows and one of nothing else are opened in turn, in Chromium.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import chromium  # beside this folder
import states


def main(tasks: int = 20, labels: int = 100, seeds: int = 5) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lay(folder / "large", tasks, labels, seeds)
        built: list[dict[str, bytes]] = []
        for turn in ("one", "two"):
            (folder / turn).mkdir()
            wall, cpu, peak = timed(folder / "large", folder / turn)
            built.append({path.name: path.read_bytes() for path in sorted((folder / turn).iterdir())})
            print(f"{tasks * labels * seeds:,} records: {wall:.1f} s ({cpu:.1f} s of CPU), bound 20 s; ", end="")
            print(f"{peak / 2**30:.2f} GiB, bound 1.5 GiB")
        print(f"two builds are {'byte-equal' if built[0] == built[1] else 'DIFFERENT'}")
        print(f"their page: {len(built[0]['index.html']) / 1e6:.1f} MB")
        lay(folder / "small", 1, 10, 5)
        timed(folder / "small", folder / "fifty")
        print(f"a page of 50 rows: {(folder / 'fifty' / 'index.html').stat().st_size / 1e6:.2f} MB, bound 8 MB")
        timed(states.lay("many", folder / "many"), folder / "many")
        tell_interactive(folder / "many" / "index.html", folder / "empty.html")


def tell_interactive(many: Path, empty: Path, repeats: int = 7) -> None:
    """Open both pages in turn and click on the head of a column."""
    from playwright.sync_api import sync_playwright

    empty.write_text(chromium.EMPTY, encoding="utf-8")
    took: dict[Path, list[float]] = {many: [], empty: []}
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        if browser is None:
            print(f"time to interactive {chromium.MISSING}")
            return
        page = browser.new_context(offline=True).new_page()
        for _ in range(repeats):
            for file, seconds in took.items():
                seconds.append(chromium.interactive(page, file))
        browser.close()
    of_many, of_empty = (statistics.median(seconds) for seconds in took.values())
    print(f"a table of 500 rows sorted after {of_many:.2f} s, in an empty page {of_empty:.2f} s, bound 1 s more")


def lay(results: Path, tasks: int, labels: int, seeds: int) -> None:
    """Records of every task, label and seed."""
    for task in range(tasks):
        for label in range(labels):
            for seed in range(seeds):
                robust = 0.2 + 0.6 * label / labels
                name = f"defense-{label:03d}"
                states.write(results, name, seed, robust, task=f"task-{task:02d}", examples=1_000, epochs=30)


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
