"""What Ray's nodes cost: `python tests/benchmarks/nodes.py [--turns 3]`. Needs `pip install 'advbench[cluster]'`.

Two comparisons, each in turn. Trainings of `dat` with three seeds by two processes, each on a Ray node of its own, and
by two that torchrun has started: training seconds of the records, whose spread from seed to seed on a shared machine is
as large as what is asked, so that one record of each says nothing. And the six jobs of the starter suite's first seed
by `advbench run`, with and without `--executor ray`: seconds of the whole command, in which Ray starts and ends.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ray_nodes import Cluster  # beside this folder

from advbench.record import load
from advbench.task import shipped

DAT = """
version = 1
title = "dat on digits"
[data]
name = "digits"
[model]
name = "digits-cnn"
[threat]
norm = "Linf"
eps = "3/20"
[training]
epochs = 60
lr = 0.02
seeds = [0, 1, 2]
[evaluation]
attacks = ["fgsm"]
[[defense]]
name = "dat"
processes = 2
"""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(words: list[str], env: Mapping[str, str]) -> float:
    """Seconds of one command."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    return time.perf_counter() - started


def shared(folder: Path, env: Mapping[str, str], turns: int) -> None:
    """The training that two processes share."""
    (folder / "t.toml").write_text(DAT, encoding="utf-8")
    asked = ["-m", "advbench", "run", str(folder / "t.toml"), "--device", "cpu"]
    cluster = Cluster(env, 1)
    found: dict[str, list[float]] = {"torchrun": [], "two Ray nodes": []}
    try:
        cluster.join("second", 1)
        for turn in range(turns):
            for name, before, more, where in (
                ("torchrun", TORCHRUN, [], env),
                ("two Ray nodes", [], ["--executor", "ray"], cluster.reached),
            ):
                results = folder / f"{name}{turn}"
                run([*before, *asked, *more, "--results", str(results)], where)
                records = [load(one) for one in sorted(results.glob("records/t/*/record.json"))]
                seconds = [record.cost.train_seconds for record in records]
                found[name] += seconds
                print(f"turn {turn}: {name:<14} {', '.join(f'{one:.1f}' for one in seconds)} s of training", flush=True)
    finally:
        cluster.close()
    _told(found)


def suite(folder: Path, env: Mapping[str, str], turns: int) -> None:
    """A suite on one machine."""
    task = shipped("tasks") / "digits-linf.toml"
    asked = ["-m", "advbench", "run", str(task), "--only", "digits-linf/*-s0", "--device", "cpu", "--jobs", "2"]
    found: dict[str, list[float]] = {"alone": [], "by Ray": []}
    for turn in range(turns):
        for name, more in (("alone", []), ("by Ray", ["--executor", "ray"])):
            found[name].append(run([*asked, *more, "--results", str(folder / f"{name}{turn}")], env))
            print(f"turn {turn}: {name:<8} {found[name][-1]:6.1f} s", flush=True)
    _told(found)


def _told(found: dict[str, list[float]]) -> None:
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    one, other = medians.values()
    print(f"medians: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in medians.items())}: {other / one:.3f}x")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", choices=["shared", "suite"], help="one of the two comparisons")
    asked = parser.parse_args()
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as name:
        if asked.only != "suite":
            shared(Path(name), env, asked.turns)
        if asked.only != "shared":
            suite(Path(name), env, max(1, asked.turns // 2))
    print("targets: 1.10x each")


if __name__ == "__main__":
    main()
