"""What Ray adds: `python tests/benchmarks/cluster.py`. Needs `pip install 'advbench[cluster]'`.

200 jobs that do nothing, through `local` and through Ray in turn, with two workers each: milliseconds a job once the
workers are there, in the driver's CPU as well, and what the driver keeps in memory.
"""

from __future__ import annotations

import os
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

from planning import write_task
from scheduling import nothing

from advbench.execute import local, node, ray, worker
from advbench.execute.cluster import joined
from advbench.execute.local import Event
from advbench.plan import Item
from advbench.resolve import resolve

JOBS, TURNS = 200, 3


def lazy(told: Any, errand: Any) -> Any:
    """`node.work` on a worker that does nothing: Ray has it by name, as it has the real one."""
    worker._serve = nothing
    yield from work(told, errand)


work = node.work


def timed(run: Callable[..., Any], items: list[Item], results: Path) -> tuple[float, float]:
    """Milliseconds a job, of the clock and of this process's CPU, from the end of the first job on each worker."""
    ended = 0
    began = cpu = 0.0

    def hear(event: Event) -> None:
        nonlocal ended, began, cpu
        ended += event.stage == "ok"
        if ended == 4 and not began:
            began, cpu = time.perf_counter(), time.process_time()

    run(items, results, results, ["cpu"] * 2, hear)
    count = (len(items) - 4) / 1000
    return (time.perf_counter() - began) / count, (time.process_time() - cpu) / count


def main() -> None:
    """Measure and print."""
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder)
        items = resolve(folder / "many.toml", folder, {}).items[:JOBS]
        from cluster import lazy as named  # by its module's name, and not as a part of what runs here

        worker._serve, node.work = nothing, named
        began = time.perf_counter()
        with joined(None):
            print(f"Ray started in {time.perf_counter() - began:.1f} s")
            found: dict[str, list[tuple[float, float]]] = {"local": [], "ray": []}
            for turn in range(TURNS):
                for name, run in (("local", local.run), ("ray", ray.run)):
                    found[name].append(timed(run, items, folder / f"{name}{turn}"))
                    print(f"turn {turn}: {name:<5} {found[name][-1][0]:6.1f} ms a job, {found[name][-1][1]:.1f} ms CPU")
            for name, rates in found.items():
                clock, cpu = (statistics.median(rate[i] for rate in rates) for i in range(2))
                print(f"{name}: {clock:.1f} ms a job, {cpu:.1f} ms of it the driver's CPU (medians)")

    print(f"the driver's memory, at most: {getrusage(RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, torch among it")
    print(f"a job on its way: {len(pickle.dumps(items[0]))} bytes")
    print("target: 20 ms a job over local")


if __name__ == "__main__":
    main()
