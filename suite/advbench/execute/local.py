"""Jobs on this machine: worker processes that each take one job after another.

The driver itself needs no torch here. A worker that dies (killed, out of memory) fails its own job only; a driver that
dies takes its workers along, and the next run goes on from what they wrote.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

from advbench.execute import limits
from advbench.execute.packing import Packing
from advbench.execute.spread import Spread
from advbench.execute.worker import BEGUN, HELPED, READY, UNWRITABLE, Worker, context
from advbench.plan import CUBLAS, Item, finished, order
from advbench.spec import BadInput

TICK = 0.5
"""Seconds between two looks at who has died, and who takes too much."""


@dataclass(frozen=True)
class Event:
    """What the driver learns of a job while it runs."""

    item: Item
    stage: str
    """"start", "train", "evaluate", "note", "ok" or "failed"."""
    done: int = 0
    total: int = 0
    words: str = ""
    seconds: float = 0
    """Since the job started."""


class Ended(NamedTuple):
    """What the driver keeps of a job that has ended; all of it stands in the job's record."""

    path: str
    status: str
    """"ok" or "failed"."""
    reason: str
    """Why it failed, in a line."""


def run(
    items: Sequence[Item], results: Path, root: Path, devices: Sequence[str], on_event: Callable[[Event], None]
) -> list[Ended]:
    """Run `items`, one worker per entry of `devices`; each of them has its record then. In the order of their ends.

    Raises BadInput where `results` can no longer be written, which is no job's fault, and for a limit that cannot be
    watched here. An interrupt (Ctrl-C, SIGTERM) ends the workers, which write their checkpoints first, and is raised
    again.
    """
    limits.refuse(items)
    if any(item.job and item.job.deterministic for item in items):
        os.environ.setdefault(*CUBLAS)  # workers inherit it
    driver = _Driver(order(items), results, root, devices, on_event)
    try:
        driver.drive()
    finally:
        driver.stop()
    return driver.ended


class _Driver:
    def __init__(
        self,
        queue: list[Item],
        results: Path,
        root: Path,
        devices: Sequence[str],
        on_event: Callable[[Event], None],
    ) -> None:
        self.queue, self.results, self.root, self.on_event = queue, results, root, on_event
        self.context = context()
        self.ended: list[Ended] = []
        self.workers: list[Worker] = []
        first = sum(item.processes for item in queue)
        self.devices = devices[:first]
        self.spare: list[str] = []
        """For helpers only; of an accelerator one worker, whose memory nobody has to reckon up."""
        for device in devices[first:]:
            if device == "cpu" or device not in (*self.devices, *self.spare):
                self.spare.append(device)
        self.spread, self.packing = Spread(), Packing(self.devices)
        self.watched = 0.0

    def drive(self) -> None:
        """Until every job has its record."""
        for device in self.devices:
            self._hire(device)
        while self.queue or any(worker.item and not worker.helps for worker in self.workers):
            while found := _next(self.queue, self.workers, self.packing):
                item, (worker, *others) = found
                self._fresh(worker).take(item, others)
                self.on_event(Event(item, "start"))
            self._help()
            self._listen()
            if time.monotonic() - self.watched > TICK:
                self._watch()
                self.watched = time.monotonic()

    def stop(self) -> None:
        """End all workers."""
        for worker in self.workers:  # all of them first, so that they write at the same time
            worker.warn()
        for worker in self.workers:
            worker.stop()

    def _hire(self, device: str) -> Worker:
        worker = Worker(self.context, self.results, self.root, device)
        self.workers.append(worker)
        return worker

    def _fresh(self, worker: Worker) -> Worker:
        """`worker`, or another in its place where it has died or runs as a stranger has left it."""
        if worker.process.is_alive() and not worker.spoilt:
            return worker
        worker.stop()
        fresh = Worker(self.context, self.results, self.root, worker.device)
        self.workers[self.workers.index(worker)] = fresh
        return fresh

    def _help(self) -> None:
        """Give the workers that nothing is left for a part of another one's evaluation."""
        while not self.queue and (owner := self.spread.wanting(self.workers)):
            assert owner.item is not None
            idle = [
                worker
                for worker in self.workers
                if worker.idle
                and self.spread.alike(worker.device, owner.device)
                and self.packing.fits(owner.item, worker, self.workers)
            ]
            spare = [device for device in self.spare if self.spread.alike(device, owner.device)]
            if not idle and not spare:
                return
            if not idle:
                self.spare.remove(spare[0])
                idle = [self._hire(spare[0])]
            self._fresh(idle[0]).take(owner.item, [], helps=True)

    def _listen(self) -> None:
        busy = [worker for worker in self.workers if worker.item or not worker.ready]
        ready = wait([worker.connection for worker in busy], timeout=TICK)
        for worker in busy:
            # What a defense has forked may keep the connection of its dead parent open.
            dead = worker.connection not in ready and not worker.process.is_alive() and not worker.connection.poll()
            # The end of one job in this round may have been the end of those who helped with it.
            if (worker.connection in ready or dead) and (worker.item or not worker.ready):
                self._hear(worker, dead=dead)

    def _watch(self) -> None:
        """Ask those who take too much to end, and end those who do not."""
        for worker in self.workers:
            if worker.item is None:
                continue
            if worker.why:
                if time.monotonic() > worker.until:
                    worker.kill()
            elif found := limits.exceeded(worker.item, worker.process.pid, worker.began):
                worker.ask(*found)

    def _hear(self, worker: Worker, *, dead: bool = False) -> None:
        """Take one message, which may be the last one of its job."""
        item, seconds = worker.item, time.monotonic() - worker.started
        try:
            if dead:
                raise EOFError
            stage, done, total, words = worker.connection.recv()
        except (EOFError, OSError):  # OSError: it died in the middle of a message
            worker.process.join(10)
            if not worker.ready:
                worker.ready = True
                self.packing.measured(worker.device, None)
            if item:
                self._over(worker)
                if not worker.helps:
                    self._died(worker, item, seconds)
            return
        if stage == READY:
            worker.ready = True
            self.packing.measured(worker.device, done)
            return
        assert item is not None
        if stage == UNWRITABLE:
            raise BadInput(words)
        if stage in ("ok", "failed"):
            self._over(worker)
            self._end(item, stage, words, seconds)
        elif stage == HELPED:
            self._over(worker)
        elif stage == BEGUN:
            worker.began = time.monotonic()
        else:
            if stage == "evaluate" and worker.attacking is None:
                worker.attacking = time.monotonic()
            self.on_event(Event(item, stage, done, total, words, seconds))

    def _over(self, worker: Worker) -> None:
        """The worker's job has ended, and with it all help."""
        item = worker.item
        if worker.helps:
            self.spread.done(worker)
        worker.end()
        for helper in self.workers:
            if not worker.helps and helper.helps and helper.item is item:
                helper.kill()  # it writes nothing but the journal, and that in one piece
                helper.end()

    def _died(self, worker: Worker, item: Item, seconds: float) -> None:
        if finished(item, self.results).cached:  # it died between its last write and its last word
            self._end(item, "ok", "", seconds)
            return
        from advbench.run import failed  # loads torch, which the driver does only in this rare case

        assert item.job is not None
        record = failed(item.job, self.results, worker.why or ending(worker.process.exitcode))
        self._end(item, "failed", record.reason, seconds)

    def _end(self, item: Item, status: str, words: str, seconds: float) -> None:
        self.ended.append(Ended(item.path, status, words if status == "failed" else ""))
        self.on_event(Event(item, status, words=words, seconds=seconds))


def _next(queue: list[Item], workers: Sequence[Worker], packing: Packing) -> tuple[Item, list[Worker]] | None:
    """Take the job that can start now out of the queue: its first, or one that is over before the first can start.

    With it come the workers for it. A job of several processes waits for as many idle workers, a large one for room on
    a device; what would keep it waiting longer (by more than a tenth of its own time: estimates are no better than
    that) may not overtake it.
    """

    def able(item: Item) -> list[Worker]:
        return _apart([worker for worker in workers if worker.idle and packing.fits(item, worker, workers)])

    if not queue:
        return None
    wanted = min(queue[0].processes, len(workers))
    if len(found := able(queue[0])) >= wanted:
        return queue.pop(0), found[:wanted]
    if not any(worker.idle for worker in workers):
        return None
    ends = sorted(worker.busy_until for worker in workers for _ in (worker, *worker.others) if worker.item)
    if len(ends) < wanted - len(found):
        return None  # the devices have yet to say how much room there is
    for place in range(len(queue) - 1, 0, -1):
        item = queue[place]
        early = item.processes == 1 and time.monotonic() + 0.9 * item.seconds <= ends[wanted - len(found) - 1]
        if early and (small := able(item)):
            return queue.pop(place), small[:1]
    return None


def _apart(workers: Sequence[Worker]) -> list[Worker]:
    """One of each device first, then the second ones: who share a job are to have a device each."""
    earlier = [sum(other.device == worker.device for other in workers[:n]) for n, worker in enumerate(workers)]
    return [worker for _, worker in sorted(zip(earlier, workers, strict=True), key=lambda pair: pair[0])]


def ending(code: int | None) -> str:
    """How a worker process ended, in words."""
    how = f"exit code {code}"
    if code is not None and code < 0:
        how = f"signal {-code} ({signal.Signals(-code).name}); out of memory is a common cause of SIGKILL"
    return f"the worker process ended: {how}"
