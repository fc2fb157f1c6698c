"""`advbench run`: a suite of task files, from plan to records to pages, told to the person who waits."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from advbench import agenda, board, machine, notice, task
from advbench.board.studies import Studied, studies
from advbench.board.table import sections
from advbench.execute import local, torchrun
from advbench.execute.lock import locked
from advbench.files import sweep
from advbench.index import Index
from advbench.machine import Means
from advbench.plan import Item, adopt, finished, known, remember
from advbench.progress import Show, show_board, show_claims, show_plan, show_skipped
from advbench.record import load_all
from advbench.results import repair
from advbench.results.store import Store
from advbench.spec import BadInput
from advbench.sweeps import expand

OK, FAILED, BAD = 0, 1, 2


@dataclass(frozen=True)
class Cluster:
    """Jobs run on Ray."""

    address: str | None = None
    """Of one that runs; None for RAY_ADDRESS, or else one that is started here for this run."""

    @staticmethod
    def check(device: str, per_device: int | None) -> None:
        """Raises BadInput for options that mean something on one machine only."""
        if device not in ("auto", "cpu", "cuda"):
            raise BadInput(f"--device {device}: Ray says which device a job has; say auto, cpu or cuda")
        if per_device:
            raise BadInput("--per-device: Ray gives a job a whole device; leave it out")


Execute = Callable[[Sequence[Item], Path, Path, Sequence[str], Callable[[local.Event], None]], list[local.Ended]]
"""Where jobs run: items, results, data root and devices in, events on the way, records on the disk."""


def run(
    paths: Sequence[Path],
    only: Sequence[str],
    results: Path,
    root: Path,
    device: str,
    jobs: int | None,
    *,
    dry_run: bool,
    download: bool = False,
    per_device: int | None = None,
    cluster: Cluster | None = None,
    store: str | None = None,
) -> int:
    """Do what `advbench run` promises; the exit code. Raises BadInput, and KeyboardInterrupt with nothing lost.

    `only`: globs, of which a job has to match one; none for all jobs. `cluster`: a Ray that runs the jobs instead of
    this machine. `store`: a URL where finished records are kept too.
    """
    asked = (paths, only, results, root, device, jobs, per_device, store)
    if cluster:
        from advbench.execute import ray
        from advbench.execute.cluster import joined

        cluster.check(device, per_device)
        with joined(cluster.address) as means:
            return _run(*asked, ray.run, dry_run=dry_run, download=download, means=means)
    if dry_run or (place := torchrun.place()) is None:
        return _run(*asked, local.run, dry_run=dry_run, download=download)
    if place.rank:
        return torchrun.follow(place, device, root)
    with torchrun.lead(place, device) as execute:
        return _run(*asked, execute, dry_run=False, download=download)


def _run(
    paths: Sequence[Path],
    only: Sequence[str],
    results: Path,
    root: Path,
    device: str,
    jobs: int | None,
    per_device: int | None,
    url: str | None,
    execute: Execute,
    *,
    dry_run: bool,
    download: bool,
    means: Means | None = None,
) -> int:
    # No markup: a task may be called "a[b]", and an error may quote anything.
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=not sys.stdout.isatty())
    # Whatever can be wrong with the input is found before the first byte is written.
    index = Index(results)
    store = Store(url) if url else None
    asked = agenda.files(paths)
    lines, fresh = agenda.lines(asked, only, results, root, index, device, means)
    lacking = {line.task.partition("@")[0] for line in lines if line.job is None}
    wanting = [file for file in asked if file.stem in lacking]
    if download and not dry_run and _download(wanting, root, device, console, means):
        lines, fresh = agenda.lines(asked, only, results, root, index, device, means)
    here = agenda.states(lines, results, index, device, means)
    items = store.mark(here) if store else here
    devices = agenda.devices(device, jobs, items, per_device, means)
    if dry_run or _nothing_left(items):
        show_plan(console, items, len(devices))
        if dry_run:
            return OK
        console.print("nothing to run here: every job is skipped, see the reasons above")
        return BAD
    board.refuse_to_overwrite(results / "README.md")
    # A record that the board cannot read is told before the work, not after.
    damaged = repair.unreadable(results, {item.path for item in here if item.state == "run"})
    with locked(results):
        sweep(results)
        if store:
            store.try_out()
        told = repair.aside(damaged) + repair.broken(results, index, here)
        if store:
            told += store.bring([item for item in here if not item.cached], results)
        for line in told:
            console.print(line)
        for file, planned in fresh.items():
            remember(results, file, root, *planned)
        found = known(results, index)  # a job that was done under another task's name is not done twice
        items = [adopt(item, results, found) for item in agenda.states(lines, results, index, device, means)]
        show_plan(console, items, len(devices))
        todo = [item for item in items if item.state == "run"]
        ended = _work(console, todo, results, root, devices, execute, store)
        for item in items:
            index.entry(item.path)  # read while it is in memory, for the next plan
        # The index is kept after the pages are written: where it knows every record, the pages show them.
        if ended or index.changed or not all((results / name).is_file() for name in board.PAGES):
            board.build(results)
        index.save()
        _tell(console, items, ended, results)
        behind = (
            store.complete(results, [item for item in items if finished(item, results, index).cached]) if store else []
        )
        for line in behind:
            console.print(line)
        console.print(f"board: {results / 'index.html'}")
        return FAILED if behind or any(job.status == "failed" for job in ended) else OK


def _download(files: list[Path], root: Path, device: str, console: Console, means: Means | None) -> bool:
    """Get what these tasks lack and torchvision knows how to get; whether anything came. Raises BadInput."""
    came = False
    there = () if device == "cpu" else (means or machine.means(device)).accelerators
    for file in files:
        from advbench import find  # loads torch
        from advbench.data.base import Missing
        from advbench.data.published import Published

        found, _ = task.check(expand(file.stem, task.read(file))[0][0].raw)
        if found is None or (found.resources.accelerator and not there):
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


def _work(
    console: Console,
    todo: list[Item],
    results: Path,
    root: Path,
    devices: list[str],
    execute: Execute,
    store: Store | None,
) -> list[local.Ended]:
    """Run what is to be run; the pages follow every record, so that the first row can be read early."""
    if not todo:
        return []
    built = taken = 0.0
    with Show(console, todo, len(devices)) as show:

        def on_event(event: local.Event) -> None:
            nonlocal built, taken
            show(event)
            if store and event.stage == "ok":
                store.send(results, event.item.path)
            # With many records the pages take long: at most a tenth of the time goes there, and the end has them all.
            if event.stage in ("ok", "failed") and time.monotonic() - built > 10 * taken:
                started = time.monotonic()
                board.build(results)
                built = time.monotonic()
                taken = built - started

        with notice.told():
            return execute(todo, results, root, devices, on_event)


def _tell(console: Console, items: list[Item], ended: list[local.Ended], results: Path) -> None:
    """The standing, then, where a person looks last, what is missing from it and why."""
    studied: list[Studied] = []
    for name in sorted({item.task for item in items}):
        found = list(load_all(results / "records", name))  # one task's at a time: there may be thousands
        for section in sections(found):
            show_board(console, section)
        studied += [study for study in studies(found) if study.judged]
    if studied:
        show_claims(console, studied)
    show_skipped(console, items)
    for job in ended:
        if job.status == "failed":
            console.print(f"FAILED {job.path}: {job.reason}", soft_wrap=True)


def _nothing_left(items: Sequence[Item]) -> bool:
    return all(item.state == "skip" for item in items)
