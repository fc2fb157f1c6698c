"""Batches of images that do not fit on their device: made ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Queue
from threading import Event, Thread
from typing import TypeVar

import torch

SHARE = 0.5
"""Of an accelerator's free memory, at most this for one subset: model, activations and attacks need the rest."""
DEPTH = 2
"""Batches made ahead: one would leave the device waiting whenever one read is slower than one step."""

T = TypeVar("T")


def fits(size: int, device: torch.device) -> bool:
    """Whether images of `size` bytes may live on `device`; host memory, where they are already, has room for them."""
    if device.type == "cpu":
        return True
    free = torch.cuda.mem_get_info(device)[0]
    # What torch keeps for itself of an earlier job's memory is free as well.
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return size <= SHARE * free


class _End:
    """The last thing a thread sends: there are no more items, or the error that kept it from making one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def ahead(items: Iterable[T], depth: int = DEPTH) -> Generator[T]:
    """The same items in the same order, each made in a background thread while earlier ones are used.

    What making them raises is raised here, after the items before it. The thread ends with the generator: when it is
    exhausted, closed or collected.
    """
    ready: Queue[T | _End] = Queue(depth)
    stopped = Event()

    def work() -> None:
        try:
            for item in items:
                ready.put(item)
                if stopped.is_set():
                    return
            ready.put(_End())
        except BaseException as error:  # whatever it is, the consumer must not wait for ever
            ready.put(_End(error))

    thread = Thread(target=work, name="advbench-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is None:
                return
            else:
                raise item.error
    finally:
        stopped.set()
        # Makes room: the thread looks at `stopped` after each item, so it puts at most one more and never blocks.
        while not ready.empty():
            ready.get_nowait()
        thread.join()
