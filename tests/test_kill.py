"""The promise: kill the whole run at any moment, start it again until it ends, and the result is the same.

Not "about the same": the record is equal outside its volatile fields, the files beside it and the weights are
equal byte for byte, and no file under its final name is ever half written.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch

from advbench.record import load, whole
from advbench.stable import stable

pytestmark = pytest.mark.slow

DEFENSE = '''\
"""Everything that a checkpoint has to carry: noise, dropout, momentum, memory between steps, reports."""

import time

import saboteur
import torch.nn.functional as F
from advbench.defense import Defense
from advbench.losses import cross_entropy


class Busy(Defense):
    name = "busy"
    paper = "a test"

    def passes(self):
        return 1, 1

    def loss(self, state, x, y):
        time.sleep(0.01)
        noisy = F.dropout((x + 0.2 * state.noise.uniform(x)).clamp(0, 1), 0.2)
        loss = cross_entropy(state.model(noisy), y).mean()
        mean = state.memory.get("mean", loss.detach())
        state.memory["mean"] = 0.9 * mean + 0.1 * loss.detach()
        state.report["mean"] = state.memory["mean"]
        return loss * (1 + mean)
'''

SABOTEUR = '''\
"""Kills the whole process group at a named write, once. Loaded into driver and workers; without an order it rests.

The order is a file of one line: NAME before|after COUNT, which means that COUNT such files were written already.
"""

import json
import os
import signal
from pathlib import Path

ORDER = Path(__file__).with_name("order")
written = {}
replace, dumps = Path.replace, json.dumps


def strike(name, when):
    try:
        wanted, moment, count = ORDER.read_text().split()
    except OSError:
        return
    if wanted == name and moment == when and written.get(name, 0) == int(count):
        ORDER.unlink()
        os.killpg(0, signal.SIGKILL)


def replacing(self, target):
    name = "/".join(Path(target).parts[-2:])
    strike(name, "before")
    answer = replace(self, target)
    strike(name, "after")
    written[name] = written.get(name, 0) + 1
    return answer


def dumping(value, **options):
    if isinstance(value, dict) and "since" in value:  # the lock is open and empty, its new content not yet there
        strike("runs/lock", "before")
    return dumps(value, **options)


Path.replace, json.dumps = replacing, dumping
'''

WRITES = [
    ("plans/{plan}.json", 0, 0),
    ("busy-s0/checkpoint.pt", 0, 0),
    ("busy-s0/checkpoint.pt", 7, 2),  # in the middle of an epoch
    ("busy-s0/best.safetensors", 0, 0),
    ("busy-s0/last.safetensors", 0, 0),
    ("best/0.safetensors", 0, 0),
    ("best/1.safetensors", 1, 1),  # between two attacks of one block
    ("last/1.safetensors", 1, 0),
    ("busy-s0/examples.parquet", 0, 0),
    ("busy-s0/adversarial.safetensors", 0, 0),
    ("busy-s0/record.json", 0, 0),
    ("results/README.md", 0, 0),
    ("results/index.html", 0, 0),
    ("results/board.csv", 0, 0),
    ("results/board.json", 0, 0),
    ("results/board.tex", 0, 0),
    ("plans/records.json", 0, 0),
]
"""Every kind of file that a run writes under its final name, in the order in which it does; how many of them were
written before the kill that comes before the rename, and, by the next process, before the one that comes after it."""


class Bench:
    """A job of a few seconds that checkpoints after every step and writes its journal in many pieces."""

    def __init__(self, folder: Path, env: dict[str, str], tiny) -> None:
        self.folder = folder
        (folder / "busy.py").write_text(DEFENSE, encoding="utf-8")
        (folder / "saboteur.py").write_text(SABOTEUR, encoding="utf-8")
        self.env = env | {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), env.get("PYTHONPATH", "")]))}
        training = "epochs = 3\ncheckpoint_minutes = 1e-9"
        ladder = 'attacks = ["fgsm", { name = "pgd", steps = 40, restarts = 5 }]\nblock = 12\ncurve = ["1/20"]'
        changes = [("epochs = 1", training), ("batch = 16", "batch = 5"), ('attacks = ["fgsm"]', ladder)]
        self.task = tiny(folder, "t", *changes, ('name = "standard"', 'file = "busy.py"'))

    def start(self, results: str) -> subprocess.Popen[bytes]:
        # The saboteur comes before the command, because a driver that recalls its plan loads no defense.
        code = "import saboteur; from advbench.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", self.task.name, "--jobs", "1", "--results", results],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def finish(self, results: str) -> None:
        assert self.start(results).wait(120) == 0

    def outcome(self, results: str):
        """All that a run promises to make equal again."""
        folder = self.folder / results / "records" / "t" / "busy-s0"
        record = load(folder / "record.json")
        assert record.status == "ok"
        assert set(record.files) == {"examples.parquet", "adversarial.safetensors"}
        beside = {name: (folder / name).read_bytes() for name in record.files}
        weights = self.folder / results / "runs" / "t" / "busy-s0"
        beside |= {name: (weights / name).read_bytes() for name in ("best.safetensors", "last.safetensors")}
        return stable(record), beside, check_files(self.folder / results)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, command_env, tiny) -> Bench:
    return Bench(tmp_path_factory.mktemp("kill"), command_env, tiny)


@pytest.fixture(scope="module")
def reference(bench: Bench):
    """What a run gives that nobody disturbs, and how long it takes once its plan is made."""
    bench.finish("whole")
    outcome = bench.outcome("whole")
    plan = bench.folder / "later" / "runs" / "plans"
    plan.mkdir(parents=True)
    plans = (bench.folder / "whole" / "runs" / "plans").glob("*.json")
    [kept] = [path for path in plans if path.name != "records.json"]
    (plan / kept.name).write_bytes(kept.read_bytes())
    started = time.monotonic()
    bench.finish("later")
    assert bench.outcome("later") == outcome, "two undisturbed runs are equal, or the rest tells nothing"
    return outcome, time.monotonic() - started, kept


def check_files(results: Path) -> set[str]:
    """Read every file that stands under its final name; the kinds that were there."""
    kinds: set[str] = set()
    for path in sorted(results.rglob("*")):
        if not path.is_file() or path.suffix == ".tmp" or path.name in ("lock", "log.txt"):
            continue
        kinds.add(path.name)
        match path.suffix:
            case ".json":
                json.loads(path.read_text(encoding="utf-8"))
            case ".pt":
                torch.load(path, weights_only=True)
            case ".safetensors":
                safetensors.torch.load_file(path)
            case ".parquet":
                pq.read_table(path)
            case ".csv":
                assert len({len(row) for row in csv.reader(path.read_text(encoding="utf-8").splitlines())}) == 1
            case ".html":
                assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
            case ".tex":
                assert path.read_text(encoding="utf-8").endswith("\\end{table}\n")
            case _:
                assert path.name == "README.md"
                assert path.read_text(encoding="utf-8").endswith("\n")
        if path.name == "record.json":
            assert whole(load(path), path.parent), "a record stands there only with its files"
    return kinds


def scraps(results: Path) -> list[Path]:
    return list(results.rglob("*.tmp"))


def test_the_check_of_files_sees_a_half_written_one(bench: Bench, reference, tmp_path: Path):
    kinds = check_files(bench.folder / "whole")
    assert {"checkpoint.pt", "1.safetensors", "examples.parquet", "record.json", "board.csv", "index.html"} <= kinds
    for name in ("checkpoint.pt", "1.safetensors", "examples.parquet", "record.json", "index.html"):
        [path, *_] = (bench.folder / "whole").rglob(name)
        half = tmp_path / name
        half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(Exception):  # noqa: B017, PT011 (each reader has its own)
            check_files(tmp_path)
        half.unlink()


@pytest.mark.timeout(600)
def test_a_run_killed_before_and_after_each_kind_of_write_ends_the_same(bench: Bench, reference):
    """One run, killed again and again: each start goes on from what the killed one before it left."""
    outcome, _, plan = reference
    results = bench.folder / "results"
    order = bench.folder / "order"
    # The plan's name depends on nothing but the task, so the other run's plan tells it.
    orders = [
        (name.format(plan=plan.stem), moment, count)
        for name, *counts in WRITES
        for moment, count in zip(("before", "after"), counts, strict=True)
    ]
    for name, moment, count in [("runs/lock", "before", 0), *orders]:
        order.write_text(f"{name} {moment} {count}", encoding="utf-8")
        killed = bench.start("results").wait(120)
        assert not order.exists(), f"{name}: not written so often"
        assert killed == -signal.SIGKILL
        there = check_files(results)
        if name.endswith("record.json"):
            assert ("record.json" in there) == (moment == "after")
        # Pages are written together, so one process may leave several.
        assert len({path.stem.rpartition(".")[2] for path in scraps(results)}) <= 1, (
            "what the kill before left was swept"
        )
    bench.finish("results")

    assert bench.outcome("results") == outcome
    assert scraps(results) == []


@pytest.mark.timeout(600)
def test_a_run_killed_at_six_random_moments_ends_the_same(bench: Bench, reference):
    outcome, seconds, plan = reference
    moments = random.Random(0)
    kills, attempt = 0, 0
    while kills < 6:
        attempt += 1
        assert attempt < 30, "runs end before they can be killed"
        results = bench.folder / f"random{attempt}"
        (results / "runs" / "plans").mkdir(parents=True)
        (results / "runs" / "plans" / plan.name).write_bytes(plan.read_bytes())
        while True:
            run = bench.start(results.name)
            try:
                assert run.wait(moments.uniform(0, seconds) if kills < 6 else 120) == 0
                break
            except subprocess.TimeoutExpired:
                os.killpg(run.pid, signal.SIGKILL)
                run.wait()
                kills += 1
                check_files(results)
        assert bench.outcome(results.name) == outcome
        assert scraps(results) == []
