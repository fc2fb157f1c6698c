"""What a node of a Ray cluster does with a job: a worker process, watched, and what it says and writes sent home.

Where the driver's results folder is here as well, the worker writes there. Elsewhere it works in a folder of its own,
and what it writes follows to the driver, so that a job whose node is lost goes on anywhere.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

from advbench import notice
from advbench.execute import limits, mirror, ranks
from advbench.execute.local import ending
from advbench.execute.mirror import Mirror
from advbench.execute.wire import Done, Errand, Found, News, Over, Refused, Said, Told, differing, versions
from advbench.execute.worker import BEGUN, READY, UNWRITABLE, Worker
from advbench.files import sweep_temporary, write_bytes
from advbench.plan import Item, finished, record_folder, run_folder
from advbench.record import load
from advbench.task import Data

TICK = 0.5
"""Seconds between two looks at a worker: whether it lives, takes too much, has to leave, or has written something."""


def probe(told: Told, data: Mapping[str, Data]) -> Found:
    """What this node has, of what the driver has and of what its jobs need."""
    found = Found(versions(), sees(told))
    if not differing(found.versions, told.versions):
        from advbench.data.base import Missing
        from advbench.find import data_files

        for key, one in data.items():
            try:
                data_files(one, told.root)
            except Missing as error:
                found.lacking[key] = str(error)
    return found


def sees(told: Told) -> bool:
    """Whether the driver's results folder is here, and can be written."""
    mine = told.token.with_name(f"{told.token.stem}-{platform.node()}.{os.getpid()}.tmp")
    try:
        if told.token.read_bytes() != told.secret:
            return False
        mine.touch()
        mine.unlink()
    except OSError:
        return False
    return True


def work(told: Told, errand: Errand) -> Generator[News]:
    """Run one job, or be one of the processes that share it: what is said and written on the way, then how it ended."""
    if found := differing(versions(), told.versions):  # one that came after the others were asked
        yield Refused(f"node {platform.node()} has {found}; install the same on every node")
        return
    place, meet = errand.place, errand.meet
    first = place is None or place.rank == 0
    if place and not meet:
        meet = ranks.free_place()
        yield meet
    scratch = None if sees(told) else _scratch()
    results = scratch or told.results
    item = errand.item.model_copy(update={"base": _base(errand)})
    folders = run_folder(results, item.path), record_folder(results, item.path)
    try:
        if scratch and errand.kept:
            import ray

            mirror.lay(scratch, ray.get(errand.kept[0]))
        sent = Mirror(scratch, item.path) if scratch and first else None
        worker = _worker(results, told, partial(ranks.serve, place, meet) if place and meet else None)
        try:
            end = yield from _watched(worker, item, told, sent)
        finally:
            if worker.item or place:
                worker.stop()
        if first and isinstance(end, Over) and end.why and finished(item, results).cached:
            end = Said("ok", 0, 0, "")  # it died between its last write and its last word
        if sent:
            yield from sent.changed()
        yield _ended(end, folders[1], seen=not scratch) if first and isinstance(end, Said) else end
    finally:
        for folder in folders if scratch else ():
            shutil.rmtree(folder, ignore_errors=True)


def _ended(end: Said, folder: Path, *, seen: bool) -> Done:
    record = load(folder / "record.json")
    beside = None if seen else {name: (folder / name).read_bytes() for name in record.files}
    return Done(end.stage, end.words, (folder / "record.json").read_bytes(), beside)


def _watched(
    worker: Worker, item: Item, told: Told, sent: Mirror | None
) -> Generator[News, None, Said | Over | Refused]:
    """Have it done; returns how it ended."""
    import ray

    worker.take(item, [])
    looked = time.monotonic()
    while True:
        try:
            # What a defense has forked may keep the connection of its dead parent open.
            if not worker.connection.poll(TICK) and not worker.process.is_alive() and not worker.connection.poll():
                raise EOFError
            while worker.connection.poll():
                news = Said(*worker.connection.recv())
                if news.stage in ("ok", "failed"):
                    worker.end()
                    return news
                if news.stage == UNWRITABLE:
                    worker.end()
                    return Refused(f"node {platform.node()}: {news.words}")
                if news.stage == BEGUN:
                    worker.began = time.monotonic()
                if news.stage != READY:
                    yield news
        except (EOFError, OSError):
            return _gone(worker)
        if time.monotonic() - looked < TICK:
            continue
        looked = time.monotonic()
        if worker.until < looked:
            worker.kill()
        elif not worker.why and ray.wait(list(told.stop), timeout=0, fetch_local=False)[0]:
            worker.ask(STOPPED, notice.GRACE + 1)
        elif not worker.why and (found := limits.exceeded(item, worker.process.pid, worker.began)):
            worker.ask(*found)
        if sent and sent.due < looked:
            yield from sent.changed()


STOPPED = "the driver ends"


def _gone(worker: Worker) -> Over:
    worker.process.join(10)
    worker.end()
    if worker.why:
        return Over() if worker.why == STOPPED else Over(worker.why, limit=True)
    code = worker.process.exitcode
    return Over(ending(code), again=code is None or code < 0)


_hand: tuple[Worker, tuple[Path, Path, str | None]] | None = None
"""The worker process of this Ray process, kept from job to job, and what it was started for."""


def _worker(results: Path, told: Told, serve: Callable[..., None] | None) -> Worker:
    """The process that was kept, or a new one where it has gone, is spoilt, or has other devices to use."""
    global _hand
    wanted = results, told.root, os.environ.get("CUDA_VISIBLE_DEVICES")
    if _hand and not serve and _hand[0].process.is_alive() and not _hand[0].spoilt and _hand[1] == wanted:
        return _hand[0]
    _end()
    os.environ |= dict(told.environment)
    with _nameless():
        context = multiprocessing.get_context("spawn")
        worker = Worker(context, results, told.root, "cuda:0" if told.device == "cuda" else "cpu", serve)
    _hand = worker, wanted
    return worker


@atexit.register
def _end() -> None:
    """Before multiprocessing waits for its children at the end of this process, and they for theirs."""
    global _hand
    if _hand:
        _hand[0].kill()
        _hand[0].stop()
    _hand = None


@contextmanager
def _nameless() -> Generator[None]:
    """Inside, a new process does not begin by running the script of this one, which is Ray's and loads all of it."""
    main = sys.modules["__main__"]
    before = main.__dict__.pop("__file__", None)
    try:
        yield
    finally:
        if before is not None:
            main.__file__ = before


@cache
def _scratch() -> Path:
    """A folder of this process for what does not belong to it; those of processes that were killed are removed."""
    above = Path(tempfile.gettempdir())
    sweep_temporary(above.glob(".advbench-node.*.tmp"))
    folder = above / f".advbench-node.{os.getpid()}.tmp"
    folder.mkdir(mode=0o700)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _base(errand: Errand) -> Path:
    """A folder from which the job's own files are found: the task file's, where that is here as it is at home."""
    base = errand.item.base
    if all(_same(base / name, content) for name, content in errand.files.items()):
        return base
    up = max(Path(name).parts.count("..") for name in errand.files)
    here = _scratch() / "task" / Path(*["in"] * up)
    for name, content in errand.files.items():
        if not Path(name).is_absolute():  # that one can be nowhere else
            write_bytes(here / name, content)
    return here


def _same(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except OSError:
        return False
