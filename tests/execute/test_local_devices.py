"""Which devices the processes of a shared job get: one each, and no accelerator twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advbench import machine
from advbench.execute import local, worker
from advbench.plan import Item


class Stop(Exception):
    """The first job has been handed out."""


@pytest.mark.parametrize(
    ("jobs", "taken"), [([2], ["cuda:0", "cuda:1"]), ([4, 4], ["cuda:0", "cuda:1", "cuda:2", "cuda:3"])]
)
def test_a_shared_job_is_given_a_device_for_each_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, jobs, taken):
    class Recorded:
        """A worker that has a device and no process."""

        idle, item, spoilt, ready = True, None, False, True

        def __init__(self, context: object, results: Path, root: Path, device: str) -> None:
            del context, results, root
            self.device, self.process, self.connection = device, self, self

        def is_alive(self) -> bool:
            return True

        def take(self, item: Item, others: list[Any]) -> None:
            assert [self.device, *(other.device for other in others)] == taken
            assert item.processes == len(taken)
            raise Stop

        def stop(self) -> None:
            pass

        def warn(self) -> None:
            pass

        def join(self, timeout: float | None = None) -> None:
            pass

    monkeypatch.setattr(local, "Worker", Recorded)
    plan = [
        Item(task="t", label=str(n), seed=0, base=Path(), seconds=1, processes=count) for n, count in enumerate(jobs)
    ]
    with pytest.raises(Stop):
        local.run(plan, tmp_path, tmp_path, [f"cuda:{n}" for n in range(4)], lambda _: None)


def test_helpers_end_with_all_that_they_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    class Helper:
        device, ready, helps, others = "cpu", True, False, ()
        item = Item(task="t", label="d", seed=0, base=Path())
        killed = False

        def __init__(self, *told: object) -> None:
            del told

        def kill(self) -> None:
            self.killed = True

        def end(self) -> None:
            self.item = None

    monkeypatch.setattr(local, "Worker", Helper)
    driver: Any = local._Driver([], tmp_path, tmp_path, [], lambda _: None)
    owner, helper = driver._hire("cpu"), driver._hire("cpu")
    helper.helps = True

    driver._over(owner)

    assert (owner.killed, helper.killed) == (False, True)


@pytest.mark.parametrize(
    ("given", "count", "places"),
    [
        (["cpu"], 3, ["cpu"] * 3),
        (["cuda:1"], 1, ["cuda:1"]),
        # --jobs 1: the only job, so that the other devices are free.
        (["cuda:0"], 2, ["cuda:0", "cuda:1"]),
        # --jobs 4 on two devices: two workers have the first one.
        (["cuda:0", "cuda:0"], 2, ["cuda:0", "cuda:1"]),
        # Too few are told by the job, and never shared.
        (["cuda:0"], 3, ["cuda:0", "cuda:1"]),
    ],
)
def test_no_two_processes_of_a_job_get_one_accelerator(monkeypatch: pytest.MonkeyPatch, given, count, places):
    monkeypatch.setattr(machine, "accelerators", lambda: ["cuda:0", "cuda:1"])

    assert worker._places(given, count) == places
