"""How long a plan of 1,000 jobs takes: `python tests/benchmarks/planning.py`.

One task file of ten defenses and a hundred seeds, in fresh processes: new, unchanged since it was planned, with 1,000
finished records that no plan has seen, and with 1,000 that one has. Prints the median of the whole command.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from advbench.index import Index
from advbench.plan import Item, record_folder, remember
from advbench.record import Record, save
from advbench.resolve import resolve

TASK = """\
version = 1
title = "A thousand"
data = { name = "npz", path = "tiny.npz" }
model = { name = "linear" }
threat = { norm = "Linf", eps = "1/10" }
training = { epochs = 30, seeds = 100 }
evaluation = { attacks = ["fgsm", "pgd", "autoattack"], curve = ["1/20", "1/10"] }
"""
RUN = ["-m", "advbench", "run", "many.toml", "--data-root", ".", "--dry-run"]


def write_data(folder: Path) -> None:
    """Write the images of those tasks."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 4, 4), dtype=np.uint8), np.arange(64) % 4
    np.savez(folder / "tiny.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def write_task(folder: Path) -> None:
    """`many.toml`, a task of 1,000 jobs, and its data."""
    write_data(folder)
    defenses = "".join(f'[[defense]]\nname = "pgd-at"\nlabel = "d{i}"\nsteps = {i + 1}\n' for i in range(10))
    (folder / "many.toml").write_text(TASK + defenses, encoding="utf-8")


def median(folder: Path, repeats: int) -> float:
    """Seconds of the whole command."""
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, *RUN], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def lay(results: Path, item: Item) -> None:
    """A finished record of about the size of a starter suite's."""
    job = item.job
    assert job is not None
    epoch = {"loss": 0.5, "clean": 0.9, "fgsm": 0.5, "pgd": 0.4, "top_class": 0.2, "eps": 0.1, "lr": 0.1}
    history = [{"epoch": n, **epoch, "seconds": 0.1, "forward": 640, "backward": 640} for n in range(30)]
    accuracy = {"accuracy": 0.9, "low": 0.8, "high": 0.95, "n": 64}
    record = Record.model_validate(
        {"id": job.id, "task": job.task, "defense": "d", "label": job.label, "seed": job.seed, "status": "ok"}
        | {"job": job.plain(), "history": history, "scores": {"clean": accuracy, "robust": accuracy}}
        | {"cost": {"train_seconds": 3, "train_forward": 19200, "eval_seconds": 9, "forward": 64000}}
        | {"provenance": {"device": "another", "threads": 1}}
    )
    save(record, record_folder(results, item.path), {"examples.parquet": b"x" * 15_000, "a.safetensors": b"x" * 30_000})


def main(repeats: int = 7) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_task(folder)
        medians = {"new": median(folder, repeats)}
        resolved = resolve(folder / "many.toml", folder, {})
        assert len(resolved.items) == 1000
        # As the command in that folder names its files.
        remember(folder / "results", folder / "many.toml", folder, resolved.items, resolved.watched, time.time_ns())
        medians["unchanged"] = median(folder, repeats)
        for item in resolved.items:
            lay(folder / "results", item)
        medians["unchanged, 1,000 records never seen"] = median(folder, repeats)
        index = Index(folder / "results")
        list(index.all())
        index.save()
        medians["unchanged, 1,000 records"] = median(folder, repeats)
        for file in (folder / "results" / "runs" / "plans").glob("[!r]*.json"):
            file.unlink()
        medians["new, 1,000 records"] = median(folder, repeats)
    for what, seconds in medians.items():
        print(f"{what:36} {seconds:6.2f} s")
    print("targets: unchanged under 1 s, new under 6 s")


if __name__ == "__main__":
    main()
