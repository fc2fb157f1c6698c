"""What a job may take of the machine: minutes, and memory of its process and of all that this one started.

Watched from outside, because a job may hang in C code, where no signal is heard, and eat memory in a child.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from advbench import notice
from advbench.files import alive, started
from advbench.plan import Item
from advbench.spec import BadInput

GIB = 2**30
COUNTED = ("Pss_Anon:", "Pss_Shmem:", "SwapPss:")
"""Lines of /proc/PID/smaps_rollup. A page that n processes have counts 1/n in each, so that a fork is not charged for
what it inherits; pages of files are left out, which the kernel drops when it needs room."""


Family = dict[int, str | None]
"""Processes by number, and when each began: a number may be given again."""


def family(pid: int | None) -> Family:
    """`pid` and all processes that it started and theirs, on Linux; elsewhere `pid` alone."""
    if pid is None or not alive(pid):
        return {}
    found: Family = {pid: started(pid)}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that ended meanwhile
            for child in task.read_text(encoding="ascii").split():
                found |= family(int(child))
    return found


def memory(pid: int | None) -> int:
    """Bytes that would come free if `pid` and its family ended, but for who asks; 0 where nobody tells."""
    total = 0
    for member in family(pid).keys() - ({os.getpid()} - {pid}):
        with suppress(OSError):  # it has ended
            for line in Path(f"/proc/{member}/smaps_rollup").read_text(encoding="ascii").splitlines():
                if line.startswith(COUNTED):
                    total += 1024 * int(line.split()[1])
    return total


def exceeded(item: Item, pid: int | None, began: float | None) -> tuple[str, float] | None:
    """Which limit of `item` its process has passed, with what to do about it; None for none.

    With it come the seconds that it has to end: who is out of memory takes more of it with every one. `began`: when it
    began, by the monotonic clock; None where it has yet to.
    """
    if item.minutes is not None and began is not None and time.monotonic() - began > 60 * item.minutes:
        return (
            f"took more than {item.minutes:g} minutes; raise resources.minutes or make the job smaller; what it has "
            "written is kept, and the next run goes on from there"
        ), notice.GRACE + 1
    if item.memory_gib is not None and memory(pid) > item.memory_gib * GIB:
        return (
            f"took more than {item.memory_gib:g} GiB of memory; raise resources.memory_gib (torch alone takes about "
            "0.3 GiB) or make its model or its batches smaller"
        ), 1
    return None


def kill(members: Family) -> None:
    """End at once those who are still there, whatever they do."""
    for pid, since in members.items():
        if since is not None and started(pid) == since:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def refuse(items: Iterable[Item]) -> None:
    """Raises BadInput for a limit that cannot be watched here."""
    if any(item.memory_gib for item in items) and not watched():
        raise BadInput("resources.memory_gib: this machine does not say what a process takes; leave it out here")


def watched() -> bool:
    """Whether this machine says how much memory a process takes."""
    return Path("/proc/self/smaps_rollup").exists()
