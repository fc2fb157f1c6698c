"""A suite of 12 jobs, killed again and again: `python tests/benchmarks/kills.py --moments 100 [--log kills.jsonl]`.

Half of the moments are drawn from the clock, uniformly over half the time that an undisturbed run takes (what is left
of a suite takes less and less); the others from the kinds of files that one writes, before or after the rename.
SIGKILL goes to all processes, to the driver, or to the one that writes. After each kill every file that stands under
its final name is held to its digest. The same command is started again until it ends; then all records, tables, images
and weights are compared with those of the undisturbed run, and the next suite begins. The number that counts is the
last line's: records that are not equal.

It ends after so many moments or `--minutes`. With `--log`, every suite leaves a line there, and the same command counts
those and goes on with the next suite.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advbench.record import load
from advbench.results.verify import verify
from advbench.spec import BadInput
from advbench.stable import stable

TASK = """\
version = 1
title = "Twelve jobs"

[data]
name = "npz"
path = "toy.npz"

[model]
name = "mlp"
hidden = [16]

[threat]
norm = "Linf"
eps = "1/10"

[training]
epochs = 3
batch = 8
seeds = [0, 1, 2, 3]
checkpoint_minutes = 1e-9

[evaluation]
attacks = ["fgsm", { name = "pgd", steps = 5 }]
block = 16

[[defense]]
name = "standard"

[[defense]]
name = "fast-at"

[[defense]]
name = "pgd-at"
steps = 3
"""

SABOTEUR = '''\
"""Logs every rename, and obeys one order: KIND before|after all|one. Loaded by every process through sitecustomize."""

import os
import signal
from pathlib import Path

ORDER, LOG = (Path(os.environ["KILLS"]) / name for name in ("order", "log"))
replace = Path.replace


def strike(kind, when):
    try:
        wanted, moment, victim = ORDER.read_text().split()
    except (OSError, ValueError):
        return
    if (wanted, moment) == (kind, when):
        ORDER.unlink(missing_ok=True)
        if victim == "all":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def replacing(self, target):
    path = Path(target)
    kind = "plan.json" if path.parent.name == "plans" and path.name != "records.json" else path.name
    kind = f"journal/{kind}" if "journal" in path.parts else kind
    strike(kind, "before")
    answer = replace(self, target)
    with open(LOG, "a") as file:
        file.write(kind + "\\n")
    strike(kind, "after")
    return answer


Path.replace = replacing
'''


class Suite:
    """The task in a folder, and what is done to runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        arrays: dict[str, Any] = {}
        for split, n in (("train", 64), ("test", 32)):
            labels = np.arange(n) % 4
            images = rng.integers(0, 100, (n, 4, 4), dtype=np.uint8)
            images[np.arange(n), labels] += 120  # class c: a bright row c
            arrays |= {f"x_{split}": images, f"y_{split}": labels}
        (folder / "data").mkdir()
        np.savez(folder / "data" / "toy.npz", **arrays)
        (folder / "twelve.toml").write_text(TASK, encoding="utf-8")
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(SABOTEUR, encoding="utf-8")
        # A relative path would lead nowhere from that folder.
        paths = [str(Path(entry).resolve()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        path = os.pathsep.join([str(folder / "site"), *paths])
        self.env = {**os.environ, "PYTHONPATH": path, "KILLS": str(folder), "OMP_NUM_THREADS": "1"}

    def start(self, results: str) -> subprocess.Popen[bytes]:
        """One run, in a process group of its own."""
        command = [sys.executable, "-m", "advbench", "run", "twelve.toml", "--jobs", "2", "--results", results]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            command, cwd=self.folder, env=self.env, stdout=quiet, stderr=quiet, start_new_session=True
        )

    def outcome(self, results: str) -> dict[str, Any]:
        """By job: what is promised to be equal."""
        found: dict[str, Any] = {}
        for file in (self.folder / results).glob("records/*/*/record.json"):
            record, path = load(file), f"{file.parent.parent.name}/{file.parent.name}"
            runs = self.folder / results / "runs" / path
            weights = [(runs / f"{name}.safetensors").read_bytes() for name in ("best", "last")]
            found[path] = (stable(record), weights)
        return found

    def broken(self, results: str) -> list[str]:
        """What stands under its final name and is not whole."""
        try:
            return verify(self.folder / results).broken
        except BadInput:
            return []  # nothing was written yet


@dataclass
class Tally:
    """What came of one suite."""

    kills: dict[str, dict[str, int]]
    """By moment and victim."""
    broken: int
    """Files that were not whole after a kill."""
    unequal: int
    """Of its jobs, those that do not have the records, tables, images and weights of the undisturbed run."""

    @property
    def count(self) -> int:
        return sum(sum(victims.values()) for victims in self.kills.values())


def main() -> None:
    """Kill, compare, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path)
    asked = parser.parse_args()
    lines = asked.log.read_text(encoding="utf-8").splitlines() if asked.log and asked.log.exists() else []
    done = [Tally(**json.loads(line)) for line in lines]
    with tempfile.TemporaryDirectory() as name:
        suite = Suite(Path(name))
        started = time.monotonic()
        assert suite.start("whole").wait() == 0
        seconds = time.monotonic() - started
        wanted = suite.outcome("whole")
        assert len(wanted) == 12
        log = (suite.folder / "log").read_text(encoding="utf-8").split()
        kinds = sorted(set(log))
        print(f"undisturbed: {len(wanted)} jobs, {seconds:.0f} s, {len(log)} writes of {len(kinds)} kinds", flush=True)
        ends = time.monotonic() + 60 * asked.minutes
        while (left := asked.moments - sum(one.count for one in done)) > 0 and time.monotonic() < ends:
            draw = random.Random(f"{asked.seed}, suite {len(done)}")
            tally = _through(suite, "suite", draw, kinds, seconds, left, ends)
            found = suite.outcome("suite")
            differ = {path: outcome for path, outcome in wanted.items() if found.get(path) != outcome}
            tally.unequal = len(differ)
            for path, (record, _) in differ.items():
                other = found.get(path, ({}, []))[0]
                print(f"{path} differs in {[key for key in record if record[key] != other.get(key)]}", flush=True)
            shutil.rmtree(suite.folder / "suite")
            done.append(tally)
            print(f"suite {len(done)}: {tally.count} kills, {tally.unequal} jobs not equal", flush=True)
            if asked.log:
                with asked.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(tally)) + "\n")
    print(f"{'moment':<28}{'all':>6}{'driver':>8}{'writer':>8}")
    for moment in sorted({moment for one in done for moment in one.kills}):
        counts = [sum(one.kills.get(moment, {}).get(victim, 0) for one in done) for victim in ("all", "driver", "one")]
        print(f"{moment:<28}{counts[0]:>6}{counts[1]:>8}{counts[2]:>8}")
    kills, broken = sum(one.count for one in done), sum(one.broken for one in done)
    print(f"{kills} kills in {len(done)} suites of 12 jobs; files that were not whole after one: {broken}")
    unequal = sum(one.unequal for one in done)
    print(f"records, tables, images and weights of {12 * len(done)} jobs compared; not equal: {unequal}")


def _through(
    suite: Suite,
    results: str,
    draw: random.Random,
    kinds: list[str],
    seconds: float,
    moments: int,
    ends: float,
) -> Tally:
    """One suite to its end, killed at up to so many moments on the way."""
    order, tally = suite.folder / "order", Tally({}, 0, 0)

    def count(moment: str, victim: str) -> None:
        victims = tally.kills.setdefault(moment, {})
        victims[victim] = victims.get(victim, 0) + 1

    while True:
        order.unlink(missing_ok=True)
        last = tally.count >= moments or time.monotonic() > ends
        by_clock = draw.random() < 0.5
        moment, when = draw.choice(kinds), draw.choice(["before", "after"])
        victim = draw.choice(["all", "driver"] if by_clock else ["all", "all", "all", "one"])
        if not last and not by_clock:
            order.write_text(f"{moment} {when} {victim}", encoding="utf-8")
        run = suite.start(results)
        try:
            code = run.wait(draw.uniform(0, seconds / 2) if by_clock and not last else None)
        except subprocess.TimeoutExpired:
            (os.killpg if victim == "all" else os.kill)(run.pid, signal.SIGKILL)
            code = run.wait()
            count("clock", victim)
        else:
            if not last and not by_clock and not order.exists():
                count(f"{when} {moment}", victim)
        _gone(run.pid)
        tally.broken += len(suite.broken(results))
        if code == 0:
            return tally


def _gone(group: int) -> None:
    """Wait until no process of the group is left: workers end by themselves with their driver."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)


if __name__ == "__main__":
    main()
