"""Jobs under torchrun, or any launcher that sets its variables: `torchrun --nproc-per-node 4 -m advbench run TASK`.

Every process runs the same command and joins one group. The first one plans, writes and speaks, and runs the jobs one
after the other; what several processes share they train and evaluate together, on as many machines as the launcher has
started.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advbench import notice
from advbench.execute.guard import Guard
from advbench.execute.local import Ended, Event
from advbench.execute.worker import outcome
from advbench.plan import Item, Job, order, run_folder
from advbench.spec import BadInput

if TYPE_CHECKING:  # a plan that finds everything done loads no torch
    import torch

    from advbench.launch import Share
    from advbench.parallel import Group
    from advbench.prepare import Ready
    from advbench.train import Tell, Trained


@dataclass(frozen=True)
class Place:
    """What the launcher says of this process."""

    rank: int
    world: int
    local: int
    """Its number on its machine."""


def place() -> Place | None:
    """This process's place; None where it is the only one. Raises BadInput for half a launcher."""
    env = os.environ
    if "RANK" not in env or env.get("WORLD_SIZE", "1") == "1":
        return None
    if lacking := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]:
        raise BadInput(
            f"RANK and WORLD_SIZE are set, but not {' and '.join(lacking)}; start with torchrun, or unset them"
        )
    try:
        found = Place(int(env["RANK"]), int(env["WORLD_SIZE"]), int(env.get("LOCAL_RANK", env["RANK"])))
        port = int(env["MASTER_PORT"])
    except ValueError:
        raise BadInput(
            "RANK, WORLD_SIZE, LOCAL_RANK and MASTER_PORT should be numbers; start with torchrun, or unset them"
        ) from None
    if not 0 <= found.rank < found.world:
        raise BadInput(f"RANK should be 0 to {found.world - 1}, below WORLD_SIZE, not {found.rank}")
    if not 0 <= port <= 65535:
        raise BadInput(f"MASTER_PORT should be 0 to 65535, not {port}")
    return found


@contextmanager
def _joined(here: Place, device: str) -> Generator[tuple[Group, torch.device]]:
    """The launcher's group. Raises BadInput for a device that is not there and a port that is taken."""
    import torch

    from advbench.parallel import joined

    if device not in ("auto", "cpu", "cuda"):
        raise BadInput(
            f"--device {device}: under torchrun every process has a device of its own; say auto, cpu or cuda"
        )
    count = torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else 0
    if device == "cuda" and not count:
        raise BadInput("--device cuda: not on this machine")
    if count and here.local >= count:
        raise BadInput(f"torchrun started process {here.local} on this machine, whose devices are 0 to {count - 1}")
    mine = torch.device(f"cuda:{here.local}" if count else "cpu")
    if count:
        torch.cuda.set_device(mine)
    with joined(here.rank, here.world, mine, "env://") as group:
        yield group, mine


def follow(
    here: Place, device: str, root: Path, base: Path | None = None, begun: Callable[[], None] | None = None
) -> int:
    """Be one of the others: take part in every job that the first process shares; the exit code.

    `base`: the folder of the task file, where it lies elsewhere than with the first process. `begun`: called when the
    first process has shared a job; before that this one has only loaded and waited.
    """
    with _joined(here, device) as (group, mine):
        from advbench.prepare import prepare
        from advbench.train import Diverged, train
        from advbench.verdicts import verdicts

        def nobody(*news: Any) -> None:
            del news

        while (item := group.told(None)) is not None:
            if begun:
                begun()
            try:
                with Guard(item):
                    item = item.model_copy(update={"base": base}) if base else item
                    ready = prepare(item, root, mine)
                    # Checkpoint and journal are the first one's to read and to write.
                    how = (Path(), nobody, group, ready.collectors)
                    with notice.heeded(), notice.awaited():
                        trained = train(item.job, ready.subsets, ready.defense, ready.model, *how)
                    verdicts(item.job, ready, trained, Path(), nobody, group)
            except Diverged:
                continue  # all say it together, and the first one writes it down
            except Exception:
                traceback.print_exc()
                group.fail(traceback.format_exc())
                return 1
    return 0


@contextmanager
def lead(here: Place, device: str) -> Generator[Callable[..., list[Ended]]]:
    """Be the first: what runs jobs, as `local.run` does. The others go when the block ends."""
    with _joined(here, device) as (group, mine):
        crew = _Crew(group, mine)
        try:
            yield crew.run
        finally:
            if not crew.broken:
                with suppress(RuntimeError):  # one that has gone meanwhile needs no goodbye
                    group.told(None)


class _Crew:
    def __init__(self, group: Group, device: torch.device) -> None:
        self.group, self.device = group, device
        self.broken = False
        """A process of the group has gone; nothing can be shared any more."""

    def run(
        self,
        items: Sequence[Item],
        results: Path,
        root: Path,
        devices: Sequence[str],
        on_event: Callable[[Event], None],
    ) -> list[Ended]:
        """Run `items` here, one after the other, until the group breaks; those that have ended."""
        del devices
        from advbench.run import attempt

        ended: list[Ended] = []
        for item in order(items):
            started = time.monotonic()
            on_event(Event(item, "start"))

            def tell(stage: str, done: int, total: int, words: str, item: Item = item, since: float = started) -> None:
                on_event(Event(item, stage, done, total, words, time.monotonic() - since))

            with Guard(item):
                record = attempt(item, results, root, self.device, tell, self._share(results))
            on_event(Event(item, record.status, words=outcome(record), seconds=time.monotonic() - started))
            ended.append(Ended(item.path, record.status, record.reason))
            if self.broken:
                sys.stderr.write("a process of the group has gone: the other jobs are left for the next run\n")
                break
        return ended

    def _share(self, results: Path) -> Share:
        from advbench.launch import RankError
        from advbench.parallel import lost
        from advbench.train import Diverged, train
        from advbench.verdicts import verdicts

        def share(item: Item, ready: Ready, tell: Tell) -> Trained:
            assert isinstance(item.job, Job)
            folder = run_folder(results, item.path)
            subsets, defense, checkpoint = ready.subsets, ready.defense, folder / "checkpoint.pt"
            try:
                self.group.told(item)
                how = (checkpoint, tell, self.group, ready.collectors)
                with notice.awaited():
                    trained = train(item.job, subsets, defense, ready.model, *how)
                verdicts(item.job, ready, trained, folder, tell, self.group)
                return trained
            except Diverged:
                raise
            except BaseException as error:
                # After an interrupt too: the others are somewhere in the job, where no word from here is awaited.
                self.broken = True
                if not isinstance(error, Exception):
                    raise
                # A launcher that sees one process end ends the others; the record is written first.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                met = None if lost(error) else self.group.rank
                rank, why = self.group.failure() or (met, traceback.format_exc())
                raise RankError(rank, self.group.world, why) from None

        return share
