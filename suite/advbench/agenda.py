"""From paths on the command line to the lines of a plan: what would run here, what is done, what cannot run and why.

`run` and `validate` ask the same questions and get the same answers here. Nothing is written, and torch is loaded only
where a task file is new or has changed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advbench import machine, task
from advbench.execute.torchrun import place
from advbench.experiment import Experiment
from advbench.index import Index
from advbench.learn import Learned, priced
from advbench.machine import Means
from advbench.plan import Item, finished, recall
from advbench.spec import BadInput

Fresh = dict[Path, tuple[list[Item], list[Path], int]]
"""The task files that were resolved anew, with their lines, the files that these depend on, and when that began."""


def files(paths: Sequence[Path]) -> list[Path]:
    """The task files that `paths` mean; by default tasks/ of the folder one stands in, else the shipped suite."""
    here = Path("tasks")
    if here in paths and not here.exists():
        raise BadInput("tasks: no such file or folder; leave it out for the starter suite that comes with advbench")
    if paths:
        return task.files(list(paths))
    return task.files([here if any(here.glob("*.toml")) else task.shipped("tasks")])


def learned(index: Index, device: str) -> Learned:
    """What the records of a results folder say about the cost of jobs on `device`: auto, cpu, cuda or cuda:N."""
    entries = [entry for _, entry in index.all()]
    if not any(entry.cost for entry in entries):
        return Learned()  # without asking what this machine is
    found = machine.accelerators() if device != "cpu" else []
    chosen = device if device in found else (found or ["cpu"])[0]
    return Learned(entries, machine.device_name(chosen))


def lines(
    files: Sequence[Path],
    only: Sequence[str],
    results: Path,
    root: Path,
    index: Index,
    device: str,
    means: Means | None = None,
) -> tuple[list[Item], Fresh]:
    """Every line that is asked for, and what had to be resolved anew. All errors of all files come at once.

    `means`: what there is for jobs, where that is not this machine.
    """
    items: list[Item] = []
    fresh: Fresh = {}
    errors: list[str] = []
    loaded: dict[str, Any] = {}
    known: Learned | None = None
    for file in files:
        found = recall(results, file, root)
        if found is None:
            from advbench.resolve import resolve  # loads torch; an unchanged plan does without

            known = known or learned(index, device)
            began = time.time_ns()
            try:
                resolved = resolve(file, root, loaded, known, means)
            except BadInput as error:
                errors += error.lines
                continue
            found = resolved.items
            if all(map(_lasting, found)):
                fresh[file] = (found, resolved.watched, began)
        items += found
    if errors:
        raise BadInput(*errors)
    if twice := [path for path, count in Counter(item.path for item in items).items() if count > 1]:
        raise BadInput(f"two jobs are called '{twice[0]}'; rename one of their task files")
    chosen = [item for item in items if not only or any(map(item.matches, only))]
    if lost := [pattern for pattern in only if not any(item.matches(pattern) for item in items)]:
        names = sorted({f"{item.task}/{item.label}" for item in items})
        some = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        raise BadInput(f"--only {lost[0]!r} matches no job; there are: {some}")
    return chosen, fresh


def _lasting(item: Item) -> bool:
    """Whether the line stays as it is while no file changes: where data are missing, nothing tells that they came."""
    return item.job is not None and not (isinstance(item.job, Experiment) and item.job.instead)


def states(
    items: Sequence[Item],
    results: Path,
    index: Index,
    device: str,
    means: Means | None = None,
    *,
    again: bool = False,
) -> list[Item]:
    """The lines, each marked as cached or skipped where it is, and what is left with its price by the records.

    `means` as for `lines`. `again`: as if nothing were done yet.
    """
    found = [_here(item if again else finished(item, results, index), device, means) for item in items]
    if all(item.state != "run" for item in found):
        return found  # a fully cached run reads no record that it does not need
    return priced(found, learned(index, device))


def _here(item: Item, device: str, means: Means | None) -> Item:
    """Skip a job that needs more devices than there are or than were asked for."""
    if item.cached or item.skip or item.job is None or not (item.job.accelerator or item.processes > 1):
        return item
    means = means or machine.means(device)
    found = [] if device == "cpu" else list(means.accelerators)
    if item.job.accelerator and not found:
        return item.model_copy(update={"skip": "needs an accelerator, and there is none"})
    if device in found:
        found = [device]
    if (launched := place()) and item.processes > 1:
        if item.processes == launched.world:
            return item
        why = f"is shared by {item.processes} processes, and {launched.world} were started; start as many"
        return item.model_copy(update={"skip": why})
    have, what = (len(found), "accelerator") if found else (means.cores, "core")
    if item.processes > have:
        why = f"is shared by {item.processes} processes, and there {'is' if have == 1 else 'are'} {have} {what}"
        why += f"{'' if have == 1 else 's'}; set processes to {have}"
        return item.model_copy(update={"skip": why})
    return item


def devices(
    device: str, jobs: int | None, items: Sequence[Item], per_device: int | None = None, means: Means | None = None
) -> list[str]:
    """The device of each worker, `per_device` on each accelerator. Raises BadInput for one that is not there.

    `means` as for `lines`.
    """
    todo = [item for item in items if item.state == "run"]
    if device == "auto" and not todo:
        return ["cpu"]  # a fully cached run has no need to load torch to look for devices
    means = means or machine.means(device)
    found = list(means.accelerators) if device != "cpu" else []
    if device == "auto":
        chosen = found or ["cpu"]
    elif device == "cpu":
        chosen = ["cpu"]
    elif device == "cuda" and found:
        chosen = found
    elif device in found:
        chosen = [device]
    else:
        raise BadInput(f"--device {device}: not on this machine, which has {', '.join(['cpu', *found])}")
    if per_device and chosen == ["cpu"]:
        raise BadInput("--per-device: is for accelerators, and there is none; on the CPU say --jobs")
    if place():
        return chosen[:1]  # the launcher's processes are all there are, and jobs run one after the other
    threads = max((item.job.threads for item in todo if item.job), default=1)
    each = max(1, means.cores // threads) if chosen == ["cpu"] else per_device or 1
    count = jobs or each * len(chosen)
    return [chosen[i % len(chosen)] for i in range(count)]
