"""The starter suite against the same work written bare: `python tests/benchmarks/starter.py [--quick]`.

One side is `advbench run` of tasks/digits-linf.toml from an empty results folder with two workers, without the three
defenses that nobody writes in a few lines. The other is what a person would write for the other nine jobs: a plain
training loop and pyautoattack called directly, in two processes of one thread each. The suite does more (validation
each epoch, FGSM, PGD, the robustness curve, the other checkpoint, the records); the ratio says what that costs.
Target: at most 1.25. The sides alternate, first one and then the other first. --quick: one seed, each side once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPS, STEPS, BATCH, EPOCHS, RATE = 0.15, 10, 128, 30, 0.1
DEFENSES = ("pgd-at", "fast-at", "standard")
"""The longest first, as the suite orders them."""


def suite(task: Path, seeds: int) -> tuple[float, float, list[str]]:
    """Seconds, seconds to the first row, and what is worth a line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = task.read_text(encoding="utf-8")
        assert "seeds = [0, 1, 2]" in text
        head, *defenses = text.replace("[0, 1, 2]", str(list(range(seeds)))).split("[[defense]]")
        kept = [one for one in defenses if any(f'name = "{name}"' in one for name in DEFENSES)]
        (folder / task.name).write_text("[[defense]]".join([head, *kept]), encoding="utf-8")
        started, first = time.perf_counter(), 0.0
        arguments = ["-m", "advbench", "run", task.name, "--jobs", "2", "--device", "cpu"]
        with subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("done") and not first:
                    first = time.perf_counter() - started
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - started
        assert process.returncode == 0

        from advbench.record import load_all

        rows = list(load_all(folder / "results" / "records"))
    lines = [
        f"  {r.label}-s{r.seed}: robust {r.scores.robust.accuracy:.3f}" for r in rows if r.scores and r.scores.robust
    ]
    peak = max(record.cost.peak_memory_bytes for record in rows)
    return (
        seconds,
        first,
        [*lines, f"  peak memory: worker {peak >> 20} MiB, largest process {used.ru_maxrss >> 10} MiB"],
    )


def bare(seeds: int) -> tuple[float, list[str]]:
    """Seconds, and what is worth a line."""
    jobs = [(name, seed) for name in DEFENSES for seed in range(seeds)]
    started = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = list(pool.imap_unordered(bare_job, jobs, chunksize=1))
    seconds = time.perf_counter() - started
    lines = [f"  {name}-s{seed}: robust {robust:.3f}" for name, seed, robust, _ in sorted(done)]
    return seconds, [*lines, f"  peak memory: process {max(peak for *_, peak in done) >> 10} MiB"]


def bare_job(job: tuple[str, int]) -> tuple[str, int, float, int]:
    """Train and attack one model; its name, seed, robust accuracy, and the process's peak memory in KiB."""
    import torch
    from pyautoattack import AutoAttack
    from torch.nn.functional import cross_entropy

    from advbench.data.digits import Digits
    from advbench.data.subsets import choose
    from advbench.models.digits_cnn import DigitsCnn
    from advbench.task import Data

    name, seed = job
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    dataset = Digits().load(Path())
    subsets = choose(dataset, Data(name="digits"), "cpu")  # the same examples
    images, labels = subsets.train.pixels(slice(None)), subsets.train.labels
    model = DigitsCnn().build(dataset.shape, dataset.classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    total = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: 2 * s / total if 2 * s < total else 2 - 2 * s / total
    )

    def perturbed(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        steps, size = (STEPS, EPS / 4) if name == "pgd-at" else (1, 1.25 * EPS)
        moved = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
        for _ in range(steps):
            moved.requires_grad_()
            [gradient] = torch.autograd.grad(cross_entropy(model(moved), y), moved)
            moved = (x + (moved.detach() + size * gradient.sign() - x).clamp(-EPS, EPS)).clamp(0, 1)
        return moved

    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for step in range(len(images) // BATCH):
            rows = order[step * BATCH : (step + 1) * BATCH]
            x, y = images[rows], labels[rows]
            loss = cross_entropy(model(x if name == "standard" else perturbed(x, y)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    x, y = subsets.test.pixels(slice(None)), subsets.test.labels
    attack = AutoAttack(model, norm="Linf", eps=EPS, version="standard", device=torch.device("cpu"))
    attack.verbose = False
    moved, _ = attack.run_standard_evaluation(x, y, batch_size=500)
    with torch.no_grad():
        robust = float((model(moved).argmax(1) == y).float().mean())
    return name, seed, robust, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="one seed, each side once")
    parser.add_argument("--repeats", type=int, default=2, help="pairs of the two sides")
    options = parser.parse_args()
    seeds, repeats = (1, 1) if options.quick else (3, options.repeats)
    os.environ["OMP_NUM_THREADS"] = "1"  # as the suite gives its workers

    from advbench.find import shipped

    task = shipped("tasks") / "digits-linf.toml"
    ratios: list[float] = []
    for number in range(repeats):
        if number % 2:
            (plain, bare_lines), (ours, first, lines) = bare(seeds), suite(task, seeds)
        else:
            (ours, first, lines), (plain, bare_lines) = suite(task, seeds), bare(seeds)
        ratios.append(ours / plain)
        print(f"advbench run: {ours:.1f} s, first row after {first:.1f} s", *lines, sep="\n")
        print(f"bare: {plain:.1f} s", *bare_lines, sep="\n")
        print(f"ratio {ours / plain:.3f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f}; target: at most 1.25")


if __name__ == "__main__":
    main()
