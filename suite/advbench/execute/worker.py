"""A worker process: one job after another on one device, and the driver's view of it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from advbench import machine, notice
from advbench.execute import limits
from advbench.files import Unwritable
from advbench.plan import Item, run_folder
from advbench.record import Record

READY = "ready"
"""The first word of a worker on an accelerator, with the bytes that are free there."""
HELPED = "helped"
"""Its last word of a job that it had a part of."""
BEGUN = "begun"
"""A worker's first word of a job."""
UNWRITABLE = "unwritable"
"""A worker's word for a disk that is full."""


class Worker:
    """A process and what it was given to do."""

    def __init__(
        self,
        context: SpawnContext | ForkServerContext,
        results: Path,
        root: Path,
        device: str,
        serve: Callable[[Connection, Path, Path, str], None] | None = None,
    ) -> None:
        """`serve`: its life, where that is another one than to run jobs by itself."""
        self.connection, child = context.Pipe()
        told = (dict(os.environ), serve or _serve, child, results, root, device)
        self.process: BaseProcess = context.Process(target=_begin, args=told)
        start(self.process)
        child.close()
        self.ready = not device.startswith("cuda")
        """Whether nothing has to be heard of it before its first job."""
        self.item: Item | None = None
        self.helps = False
        """Whether `item` is another worker's job, of whose evaluation it takes a part."""
        self.started = 0.0
        self.began: float | None = None
        """When it had loaded all and turned to its job."""
        self.attacking: float | None = None
        """Since when its job is being evaluated."""
        self.device = device
        self.lent = False
        """Whether its device takes part in another worker's job."""
        self.others: list[Worker] = []
        """Those whose devices take part in its own."""
        self.spoilt = False
        """It has run a stranger's file, which may have changed torch's global settings, or was asked to end."""
        self.why = ""
        """What it was asked to end for."""
        self.until = float("inf")
        """When it has to have ended then."""
        self.family: limits.Family = {}
        """Who was there when it was asked."""

    @property
    def idle(self) -> bool:
        return self.item is None and not self.lent

    @property
    def busy_until(self) -> float:
        """When its job should end, as the plan estimated."""
        return self.started + self.item.seconds if self.item else 0.0

    def take(self, item: Item, others: list[Worker], *, helps: bool = False) -> None:
        """Start `item`, on the devices of the `others` too; or help the worker whose job it is."""
        self.others = others
        for other in others:
            other.lent = True
        self.item, self.helps, self.started = item, helps, time.monotonic()
        self.began = self.attacking = None
        self.spoilt = bool(item.own_files)
        # One that died this moment is heard of as the end of its connection, like any other death.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send((item, helps, [self.device, *(other.device for other in others)]))

    def end(self) -> None:
        """Its job is over, one way or the other."""
        self.item = None
        for other in self.others:
            other.lent = False
        self.others = []
        if self.why:
            limits.kill(self.family)
            self.spoilt = True

    def ask(self, why: str, seconds: float) -> None:
        """Ask it to end within so many seconds; it writes a checkpoint first where it trains."""
        self.why, self.until = why, time.monotonic() + seconds
        self.warn()

    def warn(self) -> None:
        """SIGTERM, and note who is there: when it has ended nobody knows any more whom it started."""
        self.family = family(self.process)
        self.process.terminate()

    def kill(self) -> None:
        """End it and all that it started, whatever they do."""
        members = family(self.process)  # known only as long as it lives
        self.process.kill()
        limits.kill(members)

    def stop(self) -> None:
        """End it, with time for a checkpoint, and wait for that."""
        if not self.family:
            self.warn()
        self.process.join(notice.GRACE + 1)
        if self.process.is_alive():  # a defense may have blocked SIGTERM
            self.kill()
            self.process.join()
        limits.kill(self.family)  # what a defense has forked, and forgotten
        self.connection.close()


def context() -> SpawnContext | ForkServerContext:
    """How workers are made: on Linux as forks of one process that has loaded torch, elsewhere from nothing.

    A fork takes milliseconds where an interpreter that loads torch takes seconds, and is as free of what a stranger's
    file has left behind. The server's socket needs a name of at most 107 bytes in the folder for temporary files.
    """
    if sys.platform != "linux" or len(os.fsencode(tempfile.gettempdir())) > 70:
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["advbench.execute.preloaded"])
    return found


def start(process: BaseProcess) -> None:
    """Start a process that will `attend`."""
    # A child reads this before it loads torch, whose thread pool has one size for life.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Not a daemon, which might not start the processes of a job that several share; it ends with its driver anyway.
    # Born with Ctrl-C blocked: it reaches the whole group, and a worker that is still importing would answer
    # with a traceback. The tracker goes first, because its start unblocks the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def family(process: BaseProcess) -> limits.Family:
    """It and all that it started; nobody once it has ended, for its number may be a stranger's by then."""
    return limits.family(process.pid) if process.is_alive() else {}


def attend() -> None:
    """In a new process: leave Ctrl-C to the driver, heed SIGTERM, and end when the driver does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    notice.heed()
    notice.follow()


def _places(places: Sequence[str], count: int) -> list[str]:
    """A device for each of `count` processes of a job that was given `places`.

    The processes of one job may share the CPU, but no accelerator. Where there are fewer workers than processes all of
    them are in this job, and so is every accelerator of the machine.
    """
    if places[0] == "cpu":
        return ["cpu"] * count
    return list(dict.fromkeys([*places, *machine.accelerators()]))[:count]


def _begin(environment: dict[str, str], serve: Callable[..., None], *told: Any) -> None:
    """In a new process, which may be the fork of an older one: its driver's environment, and luck of its own."""
    os.environ.clear()
    os.environ.update(environment)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python's own generator does so at a fork
    serve(*told)


def _serve(connection: Connection, results: Path, root: Path, device: str) -> None:
    """A worker's life: jobs in, progress and endings out."""
    attend()
    import torch

    from advbench.launch import here
    from advbench.run import attempt
    from advbench.verdicts import assist

    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # or what says plain "cuda" would land on the first one
        connection.send((READY, torch.cuda.mem_get_info(device)[0], 0, ""))
    while True:
        try:
            item, helps, places = connection.recv()
        except EOFError:
            return
        share = here(results, root, _places(places, item.processes))
        log = run_folder(results, item.path) / "log.txt"
        connection.send((BEGUN, 0, 0, ""))
        try:
            with into(log):
                if helps:
                    try:
                        assist(item, results, root, torch.device(device))
                    except Unwritable:
                        raise
                    except Exception:  # whose job it is meets the same, and says it
                        traceback.print_exc()
                    connection.send((HELPED, 0, 0, ""))
                    continue
                record = attempt(item, results, root, torch.device(device), lambda *news: connection.send(news), share)
        except Unwritable as error:
            connection.send((UNWRITABLE, 0, 0, error.lines[0]))
            continue
        if device.startswith("cuda"):  # other workers may have use for what this one keeps in store
            gc.collect()
            torch.cuda.empty_cache()
        connection.send((record.status, 0, 0, outcome(record)))


@contextlib.contextmanager
def into(log: Path) -> Generator[None]:
    """What a defense file prints belongs to its job, not between the lines of the progress. Raises Unwritable."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield
    except Unwritable:
        raise
    except OSError as error:
        raise Unwritable(log, error) from error


def outcome(record: Record) -> str:
    """A record in a few words."""
    if record.error:
        return record.reason
    if record.findings:
        return "; ".join(
            f"{claim.name} {claim.found:.3g}" for claim in record.findings.claims if claim.found is not None
        )
    scores = record.scores
    if scores is None:
        return ""
    raised = f", {', '.join(flag.name for flag in record.flags)}" if record.flags else ""
    robust = f"robust {scores.robust.accuracy:.1%}" if scores.robust else "no robust accuracy"
    return f"clean {scores.clean.accuracy:.1%}, {robust}{raised}"
