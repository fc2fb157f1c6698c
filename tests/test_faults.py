"""Damaged files, a full disk and SIGTERM in real runs: what was done goes on, is said, and ends in the same record."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from advbench.record import load
from advbench.resolve import resolve
from advbench.results.verify import verify
from advbench.run import attempt
from advbench.stable import stable

pytestmark = pytest.mark.slow

DEFENSE = '''\
"""Slow, talkative, and with all that a checkpoint has to carry."""

import time

import filler
from advbench.defense import Defense
from advbench.losses import cross_entropy


class Slow(Defense):
    name = "slow"
    paper = "a test"

    def passes(self):
        return 1, 1

    def loss(self, state, x, y):
        filler.strike("print")
        print("step", "." * 9000, flush=True)
        time.sleep(filler.PAUSE)
        return cross_entropy(state.model((x + 0.2 * state.noise.uniform(x)).clamp(0, 1)), y).mean()
'''

FILLER = '''\
"""Fills the disk before a named file is written, once. Loaded into driver and workers; without an order it rests."""

import os
from pathlib import Path

PAUSE = float(os.environ.get("PAUSE", 0))
ORDER, BALLAST = (Path(__file__).parent / name for name in ("order", "disk/ballast"))
opened = Path.open


def strike(name):
    # Nothing but the small disk is ever filled.
    if BALLAST.parent.is_mount() and ORDER.exists() and ORDER.read_text() in name:
        ORDER.unlink()
        with opened(BALLAST, "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass


def opening(self, mode="r", *args, **options):
    if mode == "wb":
        strike(self.as_posix())
    return opened(self, mode, *args, **options)


Path.open = opening
'''

Outcome = tuple[dict[str, Any], dict[str, bytes]]


class Bench:
    """A job of a second that can be made slow, in a folder of its own."""

    def __init__(self, folder: Path, env: dict[str, str], tiny: Callable[..., Path]) -> None:
        self.folder = folder
        (folder / "slow.py").write_text(DEFENSE, encoding="utf-8")
        (folder / "filler.py").write_text(FILLER, encoding="utf-8")
        self.env = env | {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), env.get("PYTHONPATH", "")]))}
        ladder = 'attacks = ["fgsm", "pgd"]\nblock = 16'
        training = "epochs = 3\ncheckpoint_minutes = 60"
        changes = [("epochs = 1", training), ("batch = 16", "batch = 4"), ('attacks = ["fgsm"]', ladder)]
        self.task = tiny(folder, "t", *changes, ('name = "standard"', 'file = "slow.py"'))

    def start(self, results: str, pause: float = 0) -> subprocess.Popen[str]:
        code = "import filler; from advbench.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, "run", self.task.name, "--jobs", "1", "--results", results],
            cwd=self.folder,
            env=self.env | {"PAUSE": str(pause)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, results: str) -> tuple[int, str, str]:
        with self.start(results) as process:
            said, complained = process.communicate(timeout=120)
        return process.returncode, said, complained

    def outcome(self, results: str) -> Outcome:
        """All that is promised to be equal."""
        folder, runs = (self.folder / results / kind / "t" / "slow-s0" for kind in ("records", "runs"))
        record = load(folder / "record.json")
        assert record.status == "ok"
        files = {name: (folder / name).read_bytes() for name in record.files}
        assert set(files) == {"examples.parquet", "adversarial.safetensors"}
        assert verify(self.folder / results).broken == []
        return stable(record), files | {n: (runs / n).read_bytes() for n in ("best.safetensors", "last.safetensors")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, command_env, tiny) -> Bench:
    return Bench(tmp_path_factory.mktemp("faults"), command_env, tiny)


@pytest.fixture(scope="module")
def whole(bench: Bench) -> Outcome:
    """What a run leaves that nothing disturbs."""
    assert bench.run("whole")[0] == 0
    return bench.outcome("whole")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


@pytest.mark.parametrize("damage", [flip, cut])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("checkpoint.pt", "slow-s0/checkpoint.pt was damaged: going on from the one before it"),
        ("journal/best/1.safetensors", "best/1.safetensors was damaged: going on from the one before it"),
        ("journal/last/0.safetensors", "last/0.safetensors was damaged: going on from the one before it"),
        ("best.safetensors", None),  # made again from the checkpoint without being read
        ("last.safetensors", None),
    ],
)
def test_damage_in_a_job_s_own_files_is_found_said_and_mended(
    bench: Bench, whole: Outcome, tmp_path: Path, monkeypatch, name, said, damage
):
    monkeypatch.syspath_prepend(bench.folder)
    results = bench.folder / tmp_path.name
    shutil.copytree(bench.folder / "whole", results)
    shutil.rmtree(results / "records")  # or nothing would be left to do
    file = results / "runs" / "t" / "slow-s0" / name
    damage(file)
    if said:
        [line] = verify(results).broken
        assert line.startswith(f"{file}: is damaged; ")
    told: list[str] = []

    def tell(stage: str, _done: int, _total: int, words: str) -> None:
        if stage == "note":
            told.append(words)

    [item] = resolve(bench.task, bench.folder / "data", {}).items
    attempt(item, results, bench.folder / "data", torch.device("cpu"), tell)

    assert told == ([said] if said else [])
    assert bench.outcome(results.name) == whole


def test_a_record_that_is_damaged_is_told_of_and_made_again(bench: Bench, whole: Outcome):
    shutil.copytree(bench.folder / "whole", bench.folder / "records-of")
    record = bench.folder / "records-of" / "records" / "t" / "slow-s0" / "record.json"
    text = record.read_text("utf-8")
    other = text.replace('"dtype": "float32"', '"dtype": "float64"')
    assert other != text

    for content, line in [
        (other, f"{Path('records-of/records/t/slow-s0')}: is not what was written; made again"),
        (text[:500], f"{Path('records-of/records/t/slow-s0/record.json')}: was damaged and is made again; kept as"),
    ]:
        record.write_text(content, encoding="utf-8")
        code, said, complained = bench.run("records-of")
        assert (code, complained) == (0, "")
        assert line in said
        assert bench.outcome("records-of") == whole


@pytest.fixture
def disk(bench: Bench) -> Iterator[Path]:
    """A file system of 32 MB in the bench: room for the pages, and for the new ones beside them."""
    path = bench.folder / "disk"
    path.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(path)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("mounting a small tmpfs needs root")
    yield path
    (bench.folder / "order").unlink(missing_ok=True)
    subprocess.run(["umount", str(path)], check=True)


WRITES = [
    "runs/plans/",
    "print",  # what a defense says goes into its log
    "slow-s0/.checkpoint.pt",
    "best/.1.safetensors",
    "slow-s0/.examples.parquet",
    "/.index.html",
    "plans/.records.json",
]
"""What a run writes in its several processes, in the order in which it does."""


@pytest.mark.timeout(300)
def test_a_disk_that_fills_before_any_kind_of_write_costs_nothing_but_the_stop(bench: Bench, whole: Outcome, disk):
    order = bench.folder / "order"
    for name in WRITES:
        order.write_text(name, encoding="utf-8")
        code, _, complained = bench.run("disk/results")

        assert not order.exists(), f"{name}: never written"
        assert code == 2
        [line] = complained.splitlines()
        assert line.startswith("advbench: disk/results/")
        assert "cannot be written: No space left on device; make room there" in line
        assert not list(disk.rglob(".*.tmp"))
        if (disk / "results" / "records").exists():
            assert verify(disk / "results").broken == []
            assert all(load(file).status == "ok" for file in disk.rglob("record.json")), "no job FAILED for it"
        (disk / "ballast").unlink()
    assert bench.run("disk/results")[0] == 0

    assert bench.outcome("disk/results") == whole


def test_sigterm_to_all_leaves_a_checkpoint_of_the_last_step_and_the_next_run_ends_the_same(bench: Bench, whole):
    log = bench.folder / "told" / "runs" / "t" / "slow-s0" / "log.txt"
    checkpoint = log.with_name("checkpoint.pt")
    with bench.start("told", pause=0.3) as process:
        while not log.exists() or log.read_text("utf-8").count("step") < 3:
            assert process.poll() is None
            time.sleep(0.05)
        asked = time.monotonic()
        os.killpg(process.pid, signal.SIGTERM)  # as a scheduler does: 10 s later it would be SIGKILL
        said, complained = process.communicate(timeout=60)
        took = time.monotonic() - asked

    assert took < 10
    assert (process.returncode, complained) == (143, "")
    assert "interrupted; nothing is lost" in said
    at = torch.load(checkpoint, weights_only=True)["at"]
    steps = log.read_text("utf-8").count("step")
    assert (at["epoch"], at["step"]) == (0, steps), "an epoch has 15 steps, and no checkpoint was due before its end"
    assert not list((bench.folder / "told").rglob("record.json"))

    code, said, complained = bench.run("told")
    assert (code, complained) == (0, "")
    assert log.read_text("utf-8").count("step") == 3 * 15, "no step was done twice"
    assert bench.outcome("told") == whole
    assert json.loads((bench.folder / "told" / "board.json").read_text("utf-8"))
