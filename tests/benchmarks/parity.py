"""Is `autoattack-fast` the authors' verdict? And in how much less time?

    python tests/benchmarks/parity.py TASK JOB RESULTS [--examples 360] [--seeds 5] [--threads 1] [--data-root data]

takes the best weights of a job that `advbench run` has left in RESULTS and lets the package and ours (fp32, then bf16)
attack the same test examples, once a seed, in turn. Two runs are discordant in an example that one of
them broke and the other did not. If ours follows the package's law, ours against the package is no more discordant than
the package against itself with another seed: the p-value is the share of all ways to call half of the runs "ours" that
look at least as different as the real one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from advbench import find
from advbench.attacks.base import Attack
from advbench.data.base import Examples
from advbench.evaluate import evaluate
from advbench.plan import run_folder
from advbench.prepare import prepare
from advbench.resolve import resolve
from advbench.scores import Verdicts
from advbench.task import Evaluation
from advbench.threat import Threat

KINDS = {
    "package": {"name": "autoattack"},
    "ours": {"name": "autoattack-fast"},
    "ours-bf16": {"name": "autoattack-fast", "precision": "bf16"},
}


def discordance(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Mean share of examples whose verdict differs, over pairs of runs; within one list, over its own pairs."""
    pairs = list(combinations(a, 2)) if a is b else [(x, y) for x in a for y in b]
    return statistics.fmean(float((x != y).float().mean()) for x, y in pairs)


def permutation(package: list[Tensor], ours: list[Tensor]) -> float:
    """Exact p-value of "across is more discordant than within": over all splits of the runs into two equal halves."""
    runs = package + ours

    def excess(chosen: tuple[int, ...]) -> float:
        left = [runs[i] for i in chosen]
        right = [runs[i] for i in range(len(runs)) if i not in chosen]
        return discordance(left, right) - (discordance(left, left) + discordance(right, right)) / 2

    real = excess(tuple(range(len(package))))
    splits = [excess(chosen) for chosen in combinations(range(len(runs)), len(package))]
    return statistics.fmean(value >= real - 1e-12 for value in splits)


@dataclass(frozen=True)
class Loaded:
    """A trained model and the examples that it is attacked on."""

    model: nn.Module
    test: Examples
    threat: Threat
    classes: int


def asking(about: str | None, examples: int) -> argparse.ArgumentParser:
    """What `load` has to be told; `examples` unless asked otherwise."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", type=Path)
    parser.add_argument("job")
    parser.add_argument("results", type=Path)
    parser.add_argument("--examples", type=int, default=examples)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    return parser


def load(asked: argparse.Namespace) -> Loaded:
    """The best weights of the job, and the first of its test examples."""
    items = {item.path: item for item in resolve(asked.task, asked.data_root, {}).items}
    item = items[asked.job]
    assert item.job
    ready = prepare(item, asked.data_root, torch.device("cpu"))
    torch.set_num_threads(asked.threads)
    ready.model.load_state_dict(load_file(run_folder(asked.results, item.path) / "best.safetensors"))
    whole = ready.subsets.test
    return Loaded(
        ready.model,
        whole.some(slice(0, asked.examples)),
        Threat(item.job.threat.norm, float(item.job.threat.eps)),
        ready.classes,
    )


def attack(kind: str, loaded: Loaded, seed: int) -> Verdicts:
    """One run over all examples in one block."""
    made = find.named(Attack, KINDS[kind])
    test, n = loaded.test, len(loaded.test)
    with tempfile.TemporaryDirectory() as journal:
        how = Evaluation(alone=0, block=n, batch=n, seed=seed)
        where = Path(journal)
        return evaluate(loaded.model, test, loaded.threat, [made], how, loaded.classes, where, kind, lambda *_: None)


def main() -> None:
    """Print a line a run, then the table's row."""
    parser = asking(__doc__, examples=360)
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    loaded = load(asked)
    stands: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for seed in range(asked.seeds):
        for kind in KINDS:
            started = time.process_time()
            found = attack(kind, loaded, seed)
            seconds[kind].append(time.process_time() - started)
            stands[kind].append(found.ledger.broken_by == -1)
            after = {name: round(value, 4) for name, value in found.scores.attacks.items()}
            passes = int(found.ledger.forward.sum() + found.ledger.backward.sum())
            print(f"seed {seed} {kind:<9} {seconds[kind][-1]:7.1f} CPU s {passes:>11,} passes {after}", flush=True)
    robust = {kind: [float(run.float().mean()) for run in runs] for kind, runs in stands.items()}
    mean = {kind: statistics.fmean(values) for kind, values in robust.items()}
    time_of = {kind: statistics.median(values) for kind, values in seconds.items()}
    print(
        json.dumps(
            {
                "job": asked.job,
                "examples": len(loaded.test),
                "robust": robust,
                "difference in points": round(100 * (mean["ours"] - mean["package"]), 3),
                "bf16 in points": round(100 * (mean["ours-bf16"] - mean["ours"]), 3),
                "discordant across": discordance(stands["package"], stands["ours"]),
                "discordant within the package": discordance(stands["package"], stands["package"]),
                "p": permutation(stands["package"], stands["ours"]),
                "times faster": round(time_of["package"] / time_of["ours"], 2),
                "times faster in bf16": round(time_of["package"] / time_of["ours-bf16"], 2),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
