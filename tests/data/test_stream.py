from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Generator, Iterator

import pytest
import torch

from advbench.data.stream import DEPTH, ahead, fits


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "advbench-ahead"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert condition()


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    assert workers() == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_items_come_in_order_and_once(count: int) -> None:
    assert list(ahead(range(count))) == list(range(count))


def counted(made: list[int]) -> Generator[int]:
    """0, 1, 2, ... without an end, each noted in `made`."""
    while True:
        made.append(len(made))
        yield made[-1]


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_items_are_made_while_an_earlier_one_is_used_but_not_more_than_asked(depth: int) -> None:
    made: list[int] = []
    items = ahead(counted(made), depth)
    assert next(items) == 0
    # One is in use, `depth` wait, and one more is in the hands of the thread.
    until(lambda: len(made) == depth + 2)
    time.sleep(0.02)
    assert len(made) == depth + 2
    items.close()


def test_two_are_made_ahead_unless_said_by_a_thread_that_keeps_no_process_alive() -> None:
    assert DEPTH == 2
    items = ahead(counted([]))
    next(items)
    assert [thread.daemon for thread in workers()] == [True]
    items.close()


def test_the_making_is_on_another_thread() -> None:
    assert all(name == "advbench-ahead" for name in ahead(threading.current_thread().name for _ in range(3)))


@pytest.mark.parametrize("taken", [1, 2, 7])
def test_leaving_early_ends_the_thread(taken: int) -> None:
    items = ahead(counted([]))
    for _ in range(taken):
        next(items)
    assert len(workers()) == 1
    items.close()
    assert workers() == []


def test_so_does_forgetting_the_generator() -> None:
    items = ahead(counted([]))
    next(items)
    del items
    gc.collect()
    assert workers() == []


def test_leaving_never_hangs_whatever_the_thread_is_doing() -> None:
    pauses = torch.rand(200, generator=torch.Generator().manual_seed(0)).mul(1e-3).tolist()
    for pause in pauses:
        items = ahead(time.sleep(p) for p in pauses[:5])
        next(items)
        time.sleep(pause)
        items.close()


class Broken(Exception):
    pass


@pytest.mark.parametrize("good", [0, 1, 5])
def test_an_error_arrives_after_the_items_before_it(good: int) -> None:
    def breaking() -> Iterator[int]:
        yield from range(good)
        raise Broken("disk on fire")

    items = ahead(breaking())
    assert [next(items) for _ in range(good)] == list(range(good))
    with pytest.raises(Broken, match="disk on fire"):
        next(items)


def test_host_memory_has_room_for_what_it_holds_already() -> None:
    assert fits(2**60, torch.device("cpu"))


def test_half_of_what_an_accelerator_has_free_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1_000))
    # 100 of the 200 bytes that torch holds are in use.
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert fits(400, torch.device("cuda"))
    assert not fits(401, torch.device("cuda"))
