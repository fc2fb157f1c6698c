"""Jobs on accelerators that are not here: the driver's own choice, on a table of devices and a simulated clock."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from advbench import agenda, machine
from advbench.execute import local
from advbench.execute.packing import SPARE, Packing
from advbench.plan import Item, order
from advbench.spec import BadInput

GB = 10**9


def job(name: str, seconds: float, memory: float | None, processes: int = 1) -> Item:
    taken = None if memory is None else int(memory * GB)
    return Item(task="t", label=name, seed=0, base=Path(), seconds=seconds, memory=taken, processes=processes)


class Simulated:
    """A worker without a process."""

    def __init__(self, device: str) -> None:
        self.device, self.item, self.started = device, None, 0.0
        self.others: list[Simulated] = []
        self.lent = False

    @property
    def idle(self) -> bool:
        return self.item is None and not self.lent

    @property
    def busy_until(self) -> float:
        return self.started + self.item.seconds if self.item else 0.0


def simulate(items: list[Item], devices: list[str], free: dict[str, float], monkeypatch) -> tuple[float, list[str]]:
    """Seconds until all are done, and their order; at no moment do jobs take more of a device than there is."""
    now, started = 0.0, []
    monkeypatch.setattr(time, "monotonic", lambda: now)
    workers, queue, packing = [Simulated(device) for device in devices], order(items), Packing(devices)
    for device, room in free.items():
        for _ in range(devices.count(device)):
            packing.measured(device, int(room * GB))
    while queue or any(worker.item for worker in workers):
        while found := local._next(queue, workers, packing):  # type: ignore[arg-type]
            item, (worker, *others) = found
            worker.item, worker.started, worker.others = item, now, others
            for other in others:
                other.lent = True
            started.append(item.label)
        for device, room in free.items():
            on = [w.item for w in workers if w.item and device in (w.device, *(o.device for o in w.others))]
            peaks = [item.memory for item in on if item.memory is not None]
            assert len(on) == 1 or sum(peaks) * SPARE <= room * GB
        busy = [worker for worker in workers if worker.item]
        assert busy, "nothing runs, and something is left"
        first = min(busy, key=lambda worker: worker.busy_until)
        now = first.busy_until
        first.item = None
        for other in first.others:
            other.lent = False
        first.others = []
    return now, started


def test_small_jobs_share_a_device_and_large_ones_have_it_alone(monkeypatch: pytest.MonkeyPatch):
    four = ["cuda:0"] * 4
    small = [job(f"s{n}", 10, 10) for n in range(8)]
    large = [job(f"l{n}", 10, 60) for n in range(4)]

    assert simulate(small, four, {"cuda:0": 80}, monkeypatch)[0] == 20  # four at a time
    assert simulate(large, four, {"cuda:0": 80}, monkeypatch)[0] == 40  # one at a time
    assert simulate([job(f"m{n}", 10, 30) for n in range(4)], four, {"cuda:0": 80}, monkeypatch)[0] == 20
    # What no record knows is taken for a fourth of the device, and for one that is larger than the device it tries.
    assert simulate([job(f"u{n}", 10, None) for n in range(8)], four, {"cuda:0": 80}, monkeypatch)[0] == 20
    assert simulate([job("huge", 10, 200), small[0]], four, {"cuda:0": 80}, monkeypatch)[0] == 20


def test_what_waits_for_room_is_overtaken_only_by_what_is_over_by_then(monkeypatch: pytest.MonkeyPatch):
    # "now" is the cheapest and goes first; then the longest, for which there is no room beside it.
    items = [job("now", 10, 30), job("large", 100, 60), job("short", 11, 10), job("long", 50, 10)]
    _, started = simulate(items, ["cuda:0"] * 3, {"cuda:0": 80}, monkeypatch)
    assert started == ["now", "short", "large", "long"]


def test_a_mix_on_devices_of_different_sizes_keeps_to_their_memory(monkeypatch: pytest.MonkeyPatch):
    draw = random.Random(0)
    items = [job(f"j{n}", draw.uniform(5, 50), draw.choice([2, 5, 10, 20, 35, None])) for n in range(200)]
    items += [job("pair", 60, 30, processes=2)]
    free = {"cuda:0": 80.0, "cuda:1": 40.0}
    devices = ["cuda:0", "cuda:1"] * 4

    took, started = simulate(items, devices, free, monkeypatch)
    alone, _ = simulate(items, ["cuda:0", "cuda:1"], free, monkeypatch)
    assert sorted(started) == sorted(item.label for item in items)
    assert took < 0.5 * alone


def test_who_share_a_job_have_a_device_each_where_there_is_one():
    devices = ["cuda:0", "cuda:1"] * 2
    workers, packing = [Simulated(device) for device in devices], Packing(devices)
    for device in devices:
        packing.measured(device, GB)
    workers[1].item = job("now", 10, 0.1)

    found = local._next([job("pair", 10, 0.1, processes=2)], workers, packing)  # type: ignore[arg-type]

    assert found is not None
    assert [worker.device for worker in found[1]] == ["cuda:0", "cuda:1"]


def test_nothing_starts_before_the_device_has_said_what_is_free_and_the_last_word_counts():
    packing = Packing(["cuda:0", "cuda:0", "cuda:1", "cpu", "cpu"])
    two = [Simulated("cuda:0"), Simulated("cuda:0")]
    item = job("a", 1, None)

    packing.measured("cuda:0", 80 * GB)
    assert not packing.fits(item, two[0], two)  # type: ignore[arg-type]
    packing.measured("cuda:0", 79 * GB)  # the second worker's own part is gone
    assert packing.fits(item, two[0], two)  # type: ignore[arg-type]
    packing.measured("cuda:0", 20 * GB)  # one that stands in for another, while a job runs beside it
    assert packing.need(item, "cuda:0") == 79 * GB / 2
    # One worker on a device, and the CPU, are asked nothing.
    for device in ("cuda:1", "cpu"):
        assert packing.fits(item, Simulated(device), [])  # type: ignore[arg-type]


def test_workers_for_each_device(monkeypatch: pytest.MonkeyPatch):
    items = [job("a", 1, None)]
    with pytest.raises(BadInput, match="--per-device: is for accelerators, and there is none; on the CPU say --jobs"):
        agenda.devices("cpu", None, items, 2)
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0", "cuda:1"])

    assert agenda.devices("auto", None, items, 2) == ["cuda:0", "cuda:1"] * 2
    assert agenda.devices("auto", 3, items, 2) == ["cuda:0", "cuda:1", "cuda:0"]
    assert agenda.devices("cuda:1", None, items, 3) == ["cuda:1"] * 3
    assert agenda.devices("auto", None, items) == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize(
    ("memory", "beside", "fits"), [(39, 25, True), (39, 26, False), (40, 24, True), (40, 25, False)]
)
def test_jobs_may_fill_a_device_to_the_last_byte(memory: float, beside: float, fits: bool):
    """Of 80 GB, and of each a quarter more than its peak."""
    packing, two = Packing(["cuda:0"] * 2 + ["cuda:1"] * 2), [Simulated("cuda:0") for _ in range(2)]
    for device in ("cuda:0", "cuda:1"):
        packing.measured(device, 80 * GB)
        assert not packing.fits(job("a", 1, memory), Simulated(device), two)  # type: ignore[arg-type]
        packing.measured(device, None)  # one that died
    two[0].item = job("a", 1, memory)
    assert packing.fits(job("b", 1, beside), two[1], two) is fits  # type: ignore[arg-type]
    # What runs elsewhere takes nothing here, unless it has lent itself this device.
    away = Simulated("cuda:1")
    assert packing.fits(job("b", 1, 64), away, [*two, away]) is True  # type: ignore[arg-type]
    two[0].others = [Simulated("cuda:1")]
    assert packing.fits(job("b", 1, beside), away, [*two, away]) is fits  # type: ignore[arg-type]
    assert SPARE == 1.25
