"""`advbench run`: a suite of task files, from plan to records to pages, told to the person who waits."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from advbench import board, task
from advbench.board.table import sections
from advbench.execute import local
from advbench.execute.lock import locked
from advbench.plan import Item, adopt, finished, known, recall, remember
from advbench.progress import Show, show_board, show_plan, show_skipped
from advbench.record import Record, load_all, sweep
from advbench.spec import BadInput

OK, FAILED, BAD = 0, 1, 2


def run(
    paths: Sequence[Path],
    only: str | None,
    results: Path,
    root: Path,
    device: str,
    jobs: int | None,
    *,
    dry_run: bool,
    download: bool = False,
) -> int:
    """Do what `advbench run` promises; the exit code. Raises BadInput, and KeyboardInterrupt with nothing lost."""
    # No markup: a task may be called "a[b]", and an error may quote anything.
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
    # Whatever can be wrong with the input is found before the first byte is written.
    asked = task.files(list(paths) or [_starter()])
    lines, fresh = _plan(asked, only, results, root)
    lacking = {line.task for line in lines if line.job is None}
    if download and not dry_run and _download([file for file in asked if file.stem in lacking], root, device, console):
        lines, fresh = _plan(asked, only, results, root)
    items = _states(lines, results, device)
    devices = _devices(device, jobs, items)
    if dry_run or _nothing_left(items):
        show_plan(console, items, len(devices))
        if dry_run:
            return OK
        console.print("nothing to run here: every job is skipped, see the reasons above")
        return BAD
    board.refuse_to_overwrite(results / "README.md")
    list(load_all(results / "records"))  # a record that the board cannot read is told before the work, not after
    with locked(results):
        sweep(results)
        for file, (resolved, watched) in fresh.items():
            remember(results, file, root, resolved, watched)
        found = known(results)  # a job that was done under another task's name is not done twice
        items = [adopt(item, results, found) for item in _states(lines, results, device)]
        show_plan(console, items, len(devices))
        records = _work(console, [item for item in items if item.state == "run"], results, root, devices)
        pages = board.build(results)
        _tell(console, items, records, results)
        console.print(f"board: {next(p for p in pages if p.suffix == '.html')}")
        return FAILED if any(record.status == "failed" for record in records) else OK


def _download(files: list[Path], root: Path, device: str, console: Console) -> bool:
    """Get what these tasks lack and torchvision knows how to get; whether anything came. Raises BadInput."""
    came = False
    for file in files:
        from advbench import find  # loads torch
        from advbench.data.base import Missing
        from advbench.data.published import Published

        found, _ = task.check(task.read(file))
        if found is None or (found.resources.accelerator and (device == "cpu" or not _accelerators())):
            continue  # changed meanwhile, or of no use here
        source = find.source(found.data)
        try:
            source.files(root)
        except Missing:
            if isinstance(source, Published):
                console.print(f"downloading {source.name} to {root}")
                source.download(root)
                came = True
    return came


def _work(console: Console, todo: list[Item], results: Path, root: Path, devices: list[str]) -> list[Record]:
    """Run what is to be run; the pages follow every record, so that the first row can be read early."""
    if not todo:
        return []
    with Show(console, todo, len(devices)) as show:

        def on_event(event: local.Event) -> None:
            show(event)
            if event.stage in ("ok", "failed"):
                board.build(results)

        return local.run(todo, results, root, devices, on_event)


def _tell(console: Console, items: list[Item], records: list[Record], results: Path) -> None:
    """The standing, then, where a person looks last, what is missing from it and why."""
    shown = {item.task for item in items}
    for section in sections(load_all(results / "records")):
        if section.task in shown:
            show_board(console, section)
    show_skipped(console, items)
    for record in records:
        if record.status == "failed":
            console.print(f"FAILED {record.task}/{record.label}-s{record.seed}: {record.reason}", soft_wrap=True)


def _nothing_left(items: Sequence[Item]) -> bool:
    return all(item.state == "skip" for item in items)


def _starter() -> Path:
    """tasks/ of the folder one stands in, else the suite that the package ships."""
    here = Path("tasks")
    if any(here.glob("*.toml")):
        return here
    return task.shipped("tasks")


Fresh = dict[Path, tuple[list[Item], list[Path]]]


def _plan(files: list[Path], only: str | None, results: Path, root: Path) -> tuple[list[Item], Fresh]:
    """Every line that is asked for, and what had to be resolved anew. All errors of all files come at once."""
    items: list[Item] = []
    fresh: Fresh = {}
    errors: list[str] = []
    loaded: dict[str, Any] = {}
    for file in files:
        lines = recall(results, file, root)
        if lines is None:
            from advbench.resolve import resolve  # loads torch; an unchanged plan does without

            try:
                resolved = resolve(file, root, loaded)
            except BadInput as error:
                errors += error.lines
                continue
            lines = resolved.items
            if all(line.job for line in lines):
                fresh[file] = (lines, resolved.watched)
        items += lines
    if errors:
        raise BadInput(*errors)
    chosen = [item for item in items if only is None or item.matches(only)]
    if not chosen:
        names = sorted({f"{item.task}/{item.label}" for item in items})
        raise BadInput(f"--only {only!r} matches no job; there are: {', '.join(names)}")
    return chosen, fresh


def _states(lines: list[Item], results: Path, device: str) -> list[Item]:
    """The lines, each marked as cached or skipped where it is."""
    return [_here(finished(line, results), device) for line in lines]


def _here(item: Item, device: str) -> Item:
    """Skip a job that needs an accelerator where there is none or where none was asked for."""
    if item.cached or item.skip or item.job is None or not item.job.accelerator:
        return item
    if device == "cpu" or (device == "auto" and not _accelerators()):
        return item.model_copy(update={"skip": "needs an accelerator, and there is none"})
    return item


@cache
def _accelerators() -> list[str]:
    """CUDA devices of this machine; torch is loaded only where a driver is there."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _devices(device: str, jobs: int | None, items: list[Item]) -> list[str]:
    """The device of each worker. Raises BadInput for one that is not there."""
    todo = [item for item in items if item.state == "run"]
    if device == "auto" and not todo:
        return ["cpu"]  # a fully cached run has no need to load torch to look for devices
    found = _accelerators() if device != "cpu" else []
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
    threads = max((item.job.threads for item in todo if item.job), default=1)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    each = max(1, cores // threads) if chosen == ["cpu"] else 1
    count = jobs or each * len(chosen)
    return [chosen[i % len(chosen)] for i in range(count)]
