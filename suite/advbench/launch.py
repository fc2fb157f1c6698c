"""One job's training and evaluation, shared by several processes of this machine.

The process that asks for it does none of it itself: it watches. A rank that fails, is killed or hangs in the wreck of
another ends them all, and the error that is told is the one of the rank where it began.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from advbench import notice
from advbench.parallel import WRECK, joined
from advbench.plan import Item, Job, run_folder
from advbench.precision import Engine
from advbench.prepare import Ready, prepare
from advbench.record import Epoch
from advbench.spec import BadInput
from advbench.train import Diverged, Tell, Trained, train
from advbench.verdicts import verdicts


class RankError(Exception):
    """A rank failed; the message ends with a line that says which one and why.

    `rank` is None where one has gone without a word; `error` is then what the others met.
    """

    def __init__(self, rank: int | None, world: int, error: str) -> None:
        why = f"rank {rank} of {world}: {error.strip().splitlines()[-1]}"
        if rank is None:
            why = "another process ended without a word; see the launcher's output"
        super().__init__(f"{error}\nRankError: {why}")


Share = Callable[[Item, Ready, Tell], Trained]
"""How a job is trained and evaluated that several processes share, from the process whose `Ready` it is; the verdicts
are then in the job's journal."""


@dataclass
class _Rank:
    number: int
    process: BaseProcess
    connection: Connection
    error: str | None = None
    """Its traceback, or how it ended."""
    since: float = 0
    """When that was, on the machine's clock; 0 for one that ended without a word, which others then suffer from."""
    done: bool = False


def here(results: Path, root: Path, places: Sequence[str]) -> Share:
    """Shared by one new process for each of `places`, which are devices of this machine.

    The function raises RankError, Diverged as `train` does, and BadInput for too few places.
    """

    def share(item: Item, ready: Ready, tell: Tell) -> Trained:
        if len(places) < (wanted := ready.defense.workers()):
            raise BadInput(
                f"is shared by {wanted} processes, each on a device of its own; there is {', '.join(places)}"
            )
        return _together(item, results, root, places, tell)

    return share


def _together(item: Item, results: Path, root: Path, places: Sequence[str], tell: Tell) -> Trained:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="advbench-") as folder:
        ranks: list[_Rank] = []
        try:
            for number, place in enumerate(places):
                connection, child = context.Pipe()
                told = (child, item, results, root, place, number, len(places), Path(folder))
                process = context.Process(target=_serve, args=told, daemon=True)
                process.start()
                child.close()
                ranks.append(_Rank(number, process, connection))
            _watch(ranks, tell)
            return _read(Path(folder) / "trained.pt")
        finally:
            for rank in ranks:
                rank.process.kill()
                rank.process.join()
                rank.connection.close()


def _watch(ranks: list[_Rank], tell: Tell) -> None:
    """Return when every rank is done. Raises for the first that is not."""
    deadline = float("inf")
    while (left := [rank for rank in ranks if not rank.done and rank.error is None]) and time.monotonic() < deadline:
        ready = wait([rank.connection for rank in left], timeout=max(0.0, min(deadline - time.monotonic(), 1.0)))
        for rank in left:
            if rank.connection in ready:
                _hear(rank, tell)
        if deadline == float("inf") and any(rank.error for rank in ranks):
            deadline = time.monotonic() + WRECK
    failed = [rank for rank in ranks if rank.error is not None]
    if failed:
        # The first is the cause; the others lost their connection to it.
        cause = min(failed, key=lambda rank: rank.since)
        raise RankError(cause.number, len(ranks), cause.error or "")


def _hear(rank: _Rank, tell: Tell) -> None:
    try:
        kind, *news = rank.connection.recv()
    except (EOFError, OSError):
        rank.process.join(10)
        code = rank.process.exitcode
        killed = (
            f"killed by signal {-code} ({signal.Signals(-code).name})" if code and code < 0 else f"exit code {code}"
        )
        rank.error = f"its process ended: {killed}"
        return
    match kind:
        case "tell":
            tell(*news)
        case "done":
            rank.done = True
        case "diverged":
            raise Diverged(news[0], tuple(Epoch(**line) for line in news[1]))
        case _:
            rank.error, rank.since = news


def _serve(
    connection: Connection, item: Item, results: Path, root: Path, place: str, rank: int, world: int, folder: Path
) -> None:
    """A rank's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    notice.heed()
    notice.follow()
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # the machine's name need not be known to any server
    log = run_folder(results, item.path) / "log.txt"

    def tell(*news: Any) -> None:
        connection.send(("tell", *news))

    with log.open("a", encoding="utf-8") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        device = torch.device(place)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with joined(rank, world, device, f"file://{folder}/meet") as group:
            # Told before the group is left, or the others would be the first to complain.
            try:
                ready = prepare(item, root, device)
                assert isinstance(item.job, Job)
                checkpoint = run_folder(results, item.path) / "checkpoint.pt"
                listen = tell if group.first else _nobody
                how = (checkpoint, listen, group, ready.collectors)
                with notice.awaited():
                    trained = train(item.job, ready.subsets, ready.defense, ready.model, *how)
                verdicts(item.job, ready, trained, checkpoint.parent, listen, group)
                if group.first:
                    _write(folder / "trained.pt", trained)
                connection.send(("done",))
            except Diverged as error:
                connection.send(("diverged", str(error), [line.plain() for line in error.history]))
            except BaseException:
                connection.send(("error", traceback.format_exc(), time.monotonic()))


def _nobody(*news: Any) -> None:
    del news


def _write(path: Path, trained: Trained) -> None:
    content = vars(trained) | {"history": [e.plain() for e in trained.history], "engine": vars(trained.engine)}
    torch.save(content, path)


def _read(path: Path) -> Trained:
    kept = torch.load(path, weights_only=True)
    history = tuple(Epoch(**line) for line in kept["history"])
    return Trained(**kept | {"history": history, "engine": Engine(**kept["engine"])})
