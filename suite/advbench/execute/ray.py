"""Jobs on a Ray cluster: a Ray task each, on any node that has room for it.

Ray knows where there is room and when a node is lost; what a task does is a worker process like those of `local`. The
driver has everything that the next try of a job goes on from: one whose node is lost is tried again elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from advbench import notice
from advbench.execute import cluster, limits, mirror, node
from advbench.execute.local import Ended, Event
from advbench.execute.torchrun import Place
from advbench.execute.wire import Done, Errand, Meet, News, Over, Piece, Refused, Said, Told, data_key, versions
from advbench.execute.worker import BEGUN
from advbench.files import write_bytes
from advbench.plan import CUBLAS, Item, order, record_folder
from advbench.record import Record, save
from advbench.spec import BadInput, read

TRIES = 4
"""Of one job, where nodes are lost under it: Ray's own default."""
TICK = 0.5
"""Seconds between two looks at what nobody says."""
WRECK = 10.0
"""Seconds in which the others of a group have to end when one has, before they are ended."""
ENDED = "it was asked to end"
AHEAD = 8
"""News of a task that may wait for the driver; then the task does."""


def run(
    items: Sequence[Item], results: Path, root: Path, devices: Sequence[str], on_event: Callable[[Event], None]
) -> list[Ended]:
    """Run `items` on the Ray that is joined, as many at a time as there are `devices`; in the order of their ends.

    Raises BadInput as `local.run` does, and for nodes that differ. An interrupt has all workers write their
    checkpoints, which come here first, and is raised again.
    """
    limits.refuse(items)
    driver = _Driver(order(items), results.absolute(), root.absolute(), devices, on_event)
    try:
        driver.drive()
    except KeyboardInterrupt:
        if notice.terminated():  # Ray raises another one, whatever the signal was
            raise notice.Terminated from None
        raise
    finally:
        driver.stop()
    return driver.ended


class _Desk:
    """Where everybody hears that it is time to leave."""

    def __init__(self) -> None:
        self.time = asyncio.Event()

    async def wait(self) -> None:
        await self.time.wait()

    async def close(self) -> None:
        self.time.set()


@dataclass
class _Try:
    """One try of a job: a stream of news from each process that shares it, the first one's first."""

    item: Item
    number: int = 1
    streams: dict[int, Any] = field(default_factory=dict[int, Any])
    """By rank."""
    group: Any = None
    """Ray's placement group, where several share it."""
    began: float | None = None
    end: Done | Over | None = None
    lost: str = ""
    """Why it has to be tried again."""
    limit: str = ""
    """What one of its processes took too much of: to the others that one has ended without a word."""
    until: float = float("inf")
    """When whoever is left is ended."""

    @property
    def weight(self) -> int:
        """How many devices it takes."""
        return self.item.processes

    @property
    def over(self) -> bool:
        return not self.streams or time.monotonic() > self.until

    def blame(self, why: str, *, limit: bool = False) -> None:
        """One of its processes has ended, for which the others soon will; the first such end is the cause."""
        if not self.lost and not self.limit:
            self.lost, self.limit = ("", why) if limit else (why, "")
        self.until = min(self.until, time.monotonic() + WRECK)


class _Driver:
    def __init__(
        self, queue: list[Item], results: Path, root: Path, devices: Sequence[str], on_event: Callable[[Event], None]
    ) -> None:
        import ray

        self.ray: Any = ray
        self.queue = [_Try(item.model_copy(update={"base": item.base.absolute()})) for item in queue]
        self.results, self.on_event, self.slots = results, on_event, len(devices)
        self.tries: list[_Try] = []
        self.ended: list[Ended] = []
        self.leaving = False
        deterministic = any(one.item.job and one.item.job.deterministic for one in self.queue)
        environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} | dict([CUBLAS] * deterministic)
        token = results / "runs" / f".ray.{os.getpid()}.tmp"
        write_bytes(token, secret := secrets.token_bytes(16))
        kind = devices[0].partition(":")[0]
        self.told = Told(results, root, kind, token, secret, versions(), environment)
        self.seen, self.having = cluster.look(self.told, queue)
        has = [one["Resources"] for one in cluster.nodes()]
        self.most = {name: max(one.get(name, 0) for one in has) for name in ("CPU", "memory")}
        """Of one node: a task that asks for more would wait for ever."""
        self.desk = self.ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=cluster.at_home()).remote()
        self.told = replace(self.told, stop=[self.desk.wait.remote()])

    def drive(self) -> None:
        """Until every job has its record."""
        while self.queue or self.tries:
            while self.queue and (not self.tries or self._room(self.queue[0])):
                self._start(self.queue.pop(0))
            self._listen()

    def _room(self, one: _Try) -> bool:
        return sum(other.weight for other in self.tries) + one.weight <= self.slots

    def stop(self) -> None:
        """End what still runs, with time for checkpoints to be written and to come home."""
        self.leaving = True
        try:
            if self.tries:
                self.desk.close.remote()
                until = time.monotonic() + notice.GRACE + 4
                while self.tries and time.monotonic() < until:
                    self._listen()
        finally:
            for one in self.tries:
                self._clear(one)
            self.ray.kill(self.desk)
            self.told.token.unlink(missing_ok=True)

    def _start(self, one: _Try) -> None:
        self.tries.append(one)
        if one.item.processes > 1:
            # Together where there is room, or else as spread as need be.
            bundles = [self._wanted(one.item) for _ in range(one.item.processes)]
            from ray.util import placement_group

            where = [self._where(one.item)] * len(bundles)
            one.group = placement_group(bundles, strategy="PACK", bundle_label_selector=where)
        self._send(one, 0)

    def _send(self, one: _Try, rank: int, meet: Meet | None = None) -> None:
        """Have a task do its part of the job."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        item, options = one.item, dict[str, Any]()
        wanted = self._wanted(item)
        if one.group:
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(one.group, rank)
        elif where := self._where(item):
            options["label_selector"] = where
        place = Place(rank, item.processes, 0) if one.group else None
        kept = [] if self.seen or rank else mirror.kept(self.results, item.path)
        errand = Errand(item, cluster.own_files(item), [self.ray.put(kept)] if kept else [], place, meet)
        task: Any = self.ray.remote(node.work).options(
            num_cpus=wanted["CPU"],
            num_gpus=wanted.get("GPU", 0),
            memory=wanted.get("memory", 0) or None,
            max_retries=0,  # a second try begins with what the first one has sent, which Ray does not know
            num_returns="streaming",
            _generator_backpressure_num_objects=AHEAD,
            name=item.path,
            **options,
        )
        one.streams[rank] = task.remote(self.told, errand)

    def _wanted(self, item: Item) -> dict[str, float]:
        """Of one process."""
        assert item.job is not None
        wanted: dict[str, float] = {"CPU": min(item.job.threads, self.most["CPU"])}
        if self.told.device == "cuda":
            wanted["GPU"] = 1
        if item.memory_gib:
            wanted["memory"] = int(min(item.memory_gib * limits.GIB / item.processes, self.most["memory"]))
        return wanted

    def _where(self, item: Item) -> dict[str, str]:
        """Which nodes may take it, in Ray's words; empty for any."""
        having = self.having.get(data_key(item))
        return {"ray.io/node-id": f"in({','.join(having)})"} if having else {}

    def _listen(self) -> None:
        """Take what has come, and see who is through."""
        streams = {id(stream): (one, rank) for one in self.tries for rank, stream in one.streams.items()}
        waited = [one.streams[rank] for one, rank in streams.values()]
        if self.ray.wait(waited, num_returns=1, timeout=TICK)[0]:
            for stream in self.ray.wait(waited, num_returns=len(waited), timeout=0)[0]:
                self._hear(*streams[id(stream)])
        for one in [one for one in self.tries if one.over]:
            self._over(one)

    def _hear(self, one: _Try, rank: int) -> None:
        try:
            self._take(one, rank, self.ray.get(next(one.streams[rank])))
        except StopIteration:
            del one.streams[rank]
        except self.ray.exceptions.RayError as error:
            del one.streams[rank]
            one.blame(f"its node was lost: {type(error).__name__}: {str(error).strip().splitlines()[-1]}")

    def _take(self, one: _Try, rank: int, news: News) -> None:
        match news:
            case Meet():
                for other in range(1, one.item.processes):
                    self._send(one, other, news)
            case Said() if rank == 0:
                if news.stage == BEGUN and one.began is None:
                    one.began = time.monotonic()
                    self.on_event(Event(one.item, "start"))
                elif news.stage != BEGUN:
                    self.on_event(Event(one.item, *news, self._seconds(one)))
            case Piece():
                mirror.take(self.results, news)
            case Refused():
                raise BadInput(news.line)
            case Over(again=True) | Over(limit=True):
                one.blame(news.why, limit=news.limit)
            case Done() | Over() if rank == 0:
                one.end = news
                one.until = min(one.until, time.monotonic() + WRECK)
            case _:
                pass

    def _seconds(self, one: _Try) -> float:
        return time.monotonic() - one.began if one.began else 0.0

    def _clear(self, one: _Try) -> None:
        """End whoever is left of a try."""
        for stream in one.streams.values():
            self.ray.cancel(stream, force=True)
        if one.group:
            from ray.util import remove_placement_group

            remove_placement_group(one.group)

    def _over(self, one: _Try) -> None:
        """A try has ended one way or the other."""
        self.tries.remove(one)
        self._clear(one)
        item, end = one.item, one.end
        done = isinstance(end, Done) and (end.status == "ok" or not (one.lost or one.limit))
        if isinstance(end, Done) and done:
            self._done(one, end)
        elif self.leaving:
            return
        elif one.limit:
            self._failed(one, one.limit)
        elif isinstance(end, Over) and end.why and not one.lost:
            self._failed(one, end.why)
        elif one.number < TRIES:
            self.on_event(Event(item, "note", words=f"{one.lost or ENDED}; going on, try {one.number + 1} of {TRIES}"))
            self.queue.insert(0, _Try(item, one.number + 1, began=one.began))
        else:
            self._failed(one, f"{one.lost or ENDED} ({TRIES} times)")

    def _done(self, one: _Try, end: Done) -> None:
        record = read(Record, end.record)
        assert record is not None
        if end.beside is not None:
            save(record, record_folder(self.results, one.item.path), end.beside)
        self._end(one, end.status, end.words)

    def _failed(self, one: _Try, why: str) -> None:
        from advbench.run import failed  # loads torch, which the driver does only in this rare case

        assert one.item.job is not None
        record = failed(one.item.job, self.results, why)
        self._end(one, "failed", record.reason)

    def _end(self, one: _Try, status: str, words: str) -> None:
        self.ended.append(Ended(one.item.path, status, words if status == "failed" else ""))
        self.on_event(Event(one.item, status, words=words, seconds=self._seconds(one)))
