"""The driver of a Ray cluster, on a Ray that only takes notes: what it asks for, and how it begins and ends."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from noted_ray import job

from advbench import notice
from advbench.execute import limits, mirror, node, ray
from advbench.execute.limits import GIB
from advbench.execute.ray import AHEAD, _Driver, _Try
from advbench.execute.torchrun import Place
from advbench.execute.wire import Errand, Meet, versions
from advbench.plan import CUBLAS
from advbench.spec import BadInput

MEET = Meet("10.0.0.1", 7)


def test_a_driver_tells_all_nodes_the_same_and_has_a_desk_at_home(
    ray_notes: SimpleNamespace, ray_driver, make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    items = [job("a", job=make_job(deterministic=None)), job("b")]
    driver = ray_driver(items, ["cuda:0", "cuda:1", "cuda:2"])

    told = driver.told
    assert (told.results, told.root, told.device, told.versions) == (tmp_path, tmp_path / "r", "cuda", versions())
    assert told.environment == {"OMP_NUM_THREADS": "1"}
    assert told.token == tmp_path / "runs" / f".ray.{os.getpid()}.tmp"
    assert told.token.read_bytes() == told.secret
    assert len(told.secret) == 16
    assert [stop.what for stop in told.stop] == ["wait"]
    assert driver.desk.what is ray._Desk
    assert driver.desk.how == {"num_cpus": 0, "scheduling_strategy": "home"}
    assert [one.item.base for one in driver.queue] == [tmp_path] * 2
    assert driver.most == {"CPU": 8.0, "memory": 3 * GIB}
    assert (driver.slots, driver.tries, driver.ended, driver.leaving, driver.seen) == (3, [], [], False, False)
    [(_, asked, looked)] = ray_notes.done
    assert (asked.token, looked) == (told.token, items)

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    again = ray_driver([job("a", job=make_job(deterministic=None)), job("b", job=make_job(deterministic=True))])
    assert again.told.environment == {"OMP_NUM_THREADS": "3", CUBLAS[0]: CUBLAS[1]}
    assert again.told.secret != told.secret


def test_a_desk_keeps_who_asks_until_it_closes():
    async def both() -> list[str]:
        desk, order = ray._Desk(), list[str]()

        async def asks() -> None:
            await desk.wait()
            order.append("leaves")

        waiting = asyncio.ensure_future(asks())
        await asyncio.sleep(0)
        order.append("works")
        await desk.close()
        await waiting
        return order

    assert asyncio.run(both()) == ["works", "leaves"]


def test_a_try_is_over_when_nobody_speaks_any_more_or_its_time_is(ray_notes: SimpleNamespace):
    one = _Try(job(processes=3))
    assert (one.number, one.weight, one.over) == (1, 3, True)
    assert one.streams is not _Try(job()).streams
    one.streams[0] = "news"
    assert not one.over
    one.until = 100.0
    assert not one.over
    one.until = 99.9
    assert one.over


def test_jobs_start_while_there_is_room_and_the_largest_when_it_has_all(ray_driver, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []

    def start(self: Any, one: _Try) -> None:
        self.tries.append(one)
        done.append(one.item.label)

    def listen(self: Any) -> None:
        done.append(f"{self.tries.pop(0).item.label} ends")

    monkeypatch.setattr(_Driver, "_start", start)
    monkeypatch.setattr(_Driver, "_listen", listen)
    ray_driver([job("a"), job("b"), job("c"), job("d", 2), job("e", 3)]).drive()
    assert done == ["a", "b", "a ends", "c", "b ends", "c ends", "d", "d ends", "e", "e ends"]


@pytest.mark.parametrize(
    ("raised", "terminated", "found"),
    [
        (None, False, None),
        (KeyboardInterrupt, False, KeyboardInterrupt),
        (KeyboardInterrupt, True, notice.Terminated),
        (ValueError, True, ValueError),
    ],
)
def test_whatever_ends_a_run_its_workers_are_stopped(
    ray_notes: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    raised: type[BaseException] | None,
    terminated: bool,
    found: type[BaseException] | None,
):
    stopped: list[Any] = []

    def drive(self: Any) -> None:
        self.ended.append("ended")
        if raised:
            raise raised

    monkeypatch.setattr(_Driver, "drive", drive)
    monkeypatch.setattr(_Driver, "stop", lambda self: stopped.append(self))
    monkeypatch.setattr(notice, "terminated", lambda: terminated)
    if found is None:
        assert ray.run([job()], tmp_path, tmp_path, ["cpu"], print) == ["ended"]
    else:
        with pytest.raises(found) as caught:
            ray.run([job()], tmp_path, tmp_path, ["cpu"], print)
        assert caught.type is found
    assert len(stopped) == 1
    monkeypatch.setattr(limits, "watched", lambda: False)
    with pytest.raises(BadInput, match="does not say what a process takes"):
        ray.run([job(memory_gib=1.0)], tmp_path, tmp_path, ["cpu"], print)


@pytest.mark.parametrize("ends", [True, False])
def test_who_still_works_has_time_for_a_checkpoint_and_for_its_way_home(
    ray_notes: SimpleNamespace, ray_driver, ends: bool
):
    driver = ray_driver()
    closed: list[Any] = []
    driver.desk.close = SimpleNamespace(remote=lambda: closed.append(ray_notes.now))
    one = _Try(job())
    stream = iter([])
    one.streams[0] = stream
    driver.tries = [one]
    ray_notes.done.clear()
    if ends:
        ray_notes.ready.append(stream)
    driver.stop()

    assert closed == [100.0]
    assert (driver.leaving, driver.ended, driver.queue) == (True, [], [])
    # All the time of a training's notice, and some seconds to send.
    assert ray_notes.now == (100.0 if ends else 100 + notice.GRACE + 4)
    assert ray_notes.done == [*([] if ends else [("cancel", stream, True)]), ("kill", driver.desk)]
    assert not driver.told.token.exists()


def test_with_nobody_at_work_nobody_is_asked_to_leave(ray_notes: SimpleNamespace, ray_driver):
    driver = ray_driver()
    driver.desk.close = SimpleNamespace(remote=lambda: pytest.fail("nobody is there"))
    driver.told.token.unlink()
    ray_notes.done.clear()
    driver.stop()
    assert ray_notes.done == [("kill", driver.desk)]
    assert ray_notes.now == 100.0


def test_a_job_is_a_task_that_reserves_what_it_takes_where_its_data_are(
    ray_notes: SimpleNamespace, ray_driver, make_job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = make_job().data.model_dump_json(by_alias=True)
    monkeypatch.setattr(mirror, "kept", lambda results, path: {"from": f"{results.name} {path}".encode()})
    driver = ray_driver(devices=["cuda:0"])
    driver.having = {data: ["n1", "n2"]}
    item = job(job=make_job(threads=16), memory_gib=2.0)
    one = _Try(item)
    driver._start(one)

    task = one.streams[0]
    assert driver.tries == [one]
    assert task.what is node.work
    assert task.how == {
        "num_cpus": 8.0,
        "num_gpus": 1,
        "memory": 2 * GIB,
        "max_retries": 0,
        "num_returns": "streaming",
        "_generator_backpressure_num_objects": AHEAD,
        "name": "t/d-s0",
        "label_selector": {"ray.io/node-id": "in(n1,n2)"},
    }
    kept = ("put", {"from": f"{tmp_path.name} t/d-s0".encode()})
    assert task.told == (driver.told, Errand(item, {}, [kept], None, None))

    # What the nodes see themselves is not sent, nor what there is nothing of; any node will do for data that all have.
    driver.having, driver.seen = {data: None}, True
    driver.told = SimpleNamespace(device="cpu")
    other = _Try(job(job=make_job(threads=2)))
    driver._start(other)
    assert other.streams[0].how["num_cpus"] == 2
    assert (other.streams[0].how["num_gpus"], other.streams[0].how["memory"]) == (0, None)
    assert "label_selector" not in other.streams[0].how
    assert other.streams[0].told[1].kept == []
    driver.seen = False
    monkeypatch.setattr(mirror, "kept", lambda *_: {})
    driver._send(other, 0)
    assert other.streams[0].told[1].kept == []
    assert ray_notes.groups == []


def test_those_who_share_a_job_reserve_their_places_together(ray_notes: SimpleNamespace, ray_driver, make_job):
    driver = ray_driver()
    data = make_job().data.model_dump_json(by_alias=True)
    driver.having = {data: ["n1"]}
    item = job(processes=2, job=make_job(threads=2), memory_gib=3.0)
    one = _Try(item)
    driver._start(one)
    bundle = {"CPU": 2, "memory": int(1.5 * GIB)}
    assert ray_notes.groups == [([bundle] * 2, "PACK", [{"ray.io/node-id": "in(n1)"}] * 2)]
    driver._take(one, 0, MEET)

    assert list(one.streams) == [0, 1]
    for rank, meet in ((0, None), (1, MEET)):
        task = one.streams[rank]
        assert task.how["scheduling_strategy"] == ("group", rank)
        assert "label_selector" not in task.how
        assert task.told[1] == Errand(item, {}, [], Place(rank, 2, 0), meet)
    driver._clear(one)
    assert ray_notes.done[1:] == [*(("cancel", one.streams[rank], True) for rank in (0, 1)), ("remove", "group")]


def test_only_the_first_process_goes_on_from_what_was_kept(ray_driver, make_job, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mirror, "kept", lambda *_: {"runs/x": b"x"})
    driver, one = ray_driver(), _Try(job(processes=2, job=make_job()))
    driver._start(one)
    driver._take(one, 0, MEET)
    assert [one.streams[rank].told[1].kept for rank in (0, 1)] == [[("put", {"runs/x": b"x"})], []]
