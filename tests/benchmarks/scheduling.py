"""What the runner itself takes: `python tests/benchmarks/scheduling.py [--jobs 10000]`.

Two numbers. A driver and two worker processes that do nothing go through 10,000 jobs, each of which leaves a record of
the size of a starter suite's: the time of all of it by the job, and what the driver has in memory after 100, after
1,000 and after all. And `advbench run` on a suite of 1,000 jobs of which 999 are done: seconds of the whole command,
and of its CPU, until the last one starts, which loads torch only in its worker.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from planning import lay, write_task

from advbench.execute import limits, local, worker
from advbench.index import Index
from advbench.plan import Item, remember
from advbench.resolve import resolve

RUN = ["-m", "advbench", "run", "many.toml", "--data-root", ".", "--device", "cpu", "--jobs", "1"]


def nothing(connection: Any, results: Path, root: Path, device: str) -> None:
    """A worker whose jobs leave a record and nothing else."""
    del root, device
    worker.attend()
    while True:
        try:
            item, _, _ = connection.recv()
        except EOFError:
            return
        connection.send((worker.BEGUN, 0, 0, ""))
        lay(results, item)
        connection.send(("ok", 0, 0, ""))


def schedule(items: list[Item], results: Path) -> tuple[float, float, list[float]]:
    """Seconds a job, of the clock and of the driver's CPU, once the workers are there; MiB after some."""
    memory: list[float] = []
    ended = 0
    began = cpu = 0.0

    def hear(event: local.Event) -> None:
        nonlocal ended, began, cpu
        if event.stage == "ok":
            ended += 1
            if ended == 1:
                began, cpu = time.perf_counter(), time.process_time()
            if ended in (100, 1000, len(items)):
                memory.append(limits.memory(os.getpid()) / 2**20 - children())

    def children() -> float:
        mine = limits.family(os.getpid())
        return sum(limits.memory(pid) for pid in mine if pid != os.getpid()) / 2**20

    worker._serve = nothing
    local.run(items, results, results, ["cpu"] * 2, hear)
    count = len(items) - 1
    return (time.perf_counter() - began) / count, (time.process_time() - cpu) / count, memory


def resume(folder: Path) -> tuple[float, float]:
    """Seconds from the command to the start of the one job that is left, of the clock and of its CPU."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *RUN], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("start "):
                break
        took = time.perf_counter() - started
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        process.terminate()
        process.stdout.read()
    return took, sum(map(int, stat[11:13])) / os.sysconf("SC_CLK_TCK")


def main(repeats: int = 3) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=10_000)
    count = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder)
        resolved = resolve(folder / "many.toml", folder, {})
        several = [
            item.model_copy(update={"label": f"{item.label}-{n}"})
            for n in range(math.ceil(count / len(resolved.items)))
            for item in resolved.items
        ][:count]
        clock, cpu, memory = schedule(several, folder / "noop")
        print(
            f"{count:,} jobs that do nothing: {1000 * clock:.1f} ms a job, {1000 * cpu:.1f} ms of it the driver's CPU"
        )
        print("the driver's memory after 100, after 1,000 and after all: " + ", ".join(f"{m:.1f} MiB" for m in memory))
        remember(folder / "results", folder / "many.toml", folder, resolved.items, resolved.watched, time.time_ns())
        for item in resolved.items[:-1]:
            lay(folder / "results", item)
        first = resume(folder)
        index = Index(folder / "results")
        list(index.all())
        index.save()
        again = sorted(resume(folder) for _ in range(repeats))[repeats // 2]
        for (took, busy), what in ((first, "records that were never seen"), (again, "records that the index knows")):
            print(f"resume with 999 done, {what}: {took:.2f} s, {busy:.2f} s of it the driver's CPU", flush=True)
    print("targets: under 50 ms a job, memory that stays, under 3 s")


if __name__ == "__main__":
    main()
