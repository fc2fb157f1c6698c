"""The same command by a launcher, and by hand as a launcher would start it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from noted_ray import RayError, Remote
from pair import said
from scripted import Scripted

from advbench.execute import cluster, local
from advbench.execute.limits import GIB
from advbench.execute.local import Event
from advbench.execute.ray import _Driver

Started = Callable[[Path], list[subprocess.Popen[str]]]


@pytest.fixture
def launched(command_env: dict[str, str]):
    """A function: folder, task, processes -> the finished `torchrun -m advbench run TASK`."""

    def run(folder: Path, task: Path, processes: int = 2) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        job = ["-m", "advbench", "run", task, "--data-root", "data", "--results", "launched", "--device", "cpu"]
        return subprocess.run(
            [*launcher, *map(str, job)],
            cwd=folder,
            env=command_env | {"GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.fixture
def started(command_env: dict[str, str], tmp_path: Path) -> Iterator[Started]:
    """A function: task -> two processes in the middle of its first job, whom no launcher ends with one another."""
    processes: list[subprocess.Popen[str]] = []

    def start(task: Path) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        command = [sys.executable, "-m", "advbench", "run", str(task), "--data-root", "data", "--device", "cpu"]
        for rank in range(2):
            place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            env = command_env | place | {"GLOO_SOCKET_IFNAME": "lo"}
            with (tmp_path / f"{rank}.txt").open("w", encoding="utf-8") as out:
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=tmp_path,
                        env=env,
                        stdout=out,
                        stderr=out,
                        text=True,
                        # Tests that run in the background have had SIGINT ignored, and would hand that down.
                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                    )
                )
        deadline = time.monotonic() + 400
        while not all("in epoch" in said(tmp_path, rank) for rank in range(2)):
            assert all(process.poll() is None for process in processes), said(tmp_path, 0) + said(tmp_path, 1)
            assert time.monotonic() < deadline, said(tmp_path, 0) + said(tmp_path, 1)
            time.sleep(0.1)
        return processes

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Its `now` is the time. Workers are Scripted, and who waits for their words waits until there are some."""
    told = SimpleNamespace(now=100.0)

    def wait(connections: list[Scripted], timeout: float) -> list[Scripted]:
        told.now += timeout / 2
        return [one for one in connections if one.words]

    monkeypatch.setattr(time, "monotonic", lambda: told.now)
    monkeypatch.setattr(local, "Worker", Scripted)
    monkeypatch.setattr(local, "wait", wait)
    return told


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def ray_notes(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Ray was told. Its nodes have 8 and 4 cores; the time is `now`, and who waits waits as long as it may."""
    seen = SimpleNamespace(now=100.0, done=[], ready=[], groups=[], waits=[])

    def wait(refs: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        seen.waits.append((len(refs), num_returns, timeout))
        ready = [ref for ref in refs if ref in seen.ready][:num_returns]
        if not ready:
            seen.now += timeout
        return ready, []

    def placement_group(bundles: Any, strategy: str, bundle_label_selector: Any) -> str:
        seen.groups.append((bundles, strategy, bundle_label_selector))
        return "group"

    fake: Any = SimpleNamespace(
        remote=Remote,
        wait=wait,
        get=lambda ref: ref,
        put=lambda content: ("put", content),
        cancel=lambda stream, force: seen.done.append(("cancel", stream, force)),
        kill=lambda desk: seen.done.append(("kill", desk)),
        exceptions=SimpleNamespace(RayError=RayError),
    )
    groups = SimpleNamespace(
        placement_group=placement_group, remove_placement_group=lambda group: seen.done.append(("remove", group))
    )
    affinity = SimpleNamespace(PlacementGroupSchedulingStrategy=lambda group, rank: (group, rank))
    for name, module in (("ray", fake), ("ray.util", groups), ("ray.util.scheduling_strategies", affinity)):
        monkeypatch.setitem(sys.modules, name, module)
    has = [{"CPU": 8.0, "memory": 3.0 * GIB}, {"CPU": 4.0}]
    monkeypatch.setattr(cluster, "nodes", lambda: [{"Resources": one} for one in has])
    monkeypatch.setattr(cluster, "look", lambda told, items: (seen.done.append(("look", told, items)), (False, {}))[1])
    monkeypatch.setattr(cluster, "at_home", lambda: "home")
    monkeypatch.setattr(time, "monotonic", lambda: seen.now)
    return seen


@pytest.fixture
def ray_driver(ray_notes: SimpleNamespace, tmp_path: Path, events: list[Event]) -> Callable[..., Any]:
    """A function: items, devices -> their driver."""
    return lambda items=(), devices=("cpu", "cpu"): _Driver([*items], tmp_path, tmp_path / "r", devices, events.append)
