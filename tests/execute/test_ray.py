"""Jobs on Ray: the same records as anywhere else, limits, interrupts, and what is said where there is no Ray."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pair import STANDARD, suite
from printed import block
from ray_nodes import Cluster, members

from advbench.execute.limits import GIB
from advbench.execute.ray import _Driver, _Try
from advbench.record import load
from advbench.resolve import resolve
from advbench.stable import stable


@pytest.fixture(scope="module")
def cluster(command_env: dict[str, str]) -> Iterator[Cluster]:
    """One node on this machine."""
    found = Cluster(command_env, 2)
    yield found
    found.close()


def grow(repo: Path, task: Path, address: str = "") -> list[list[str]]:
    """The commands of the README's section, from one machine to a cluster, for `task`."""
    lines = block(repo / "README.md", "grow").replace("tasks/", str(task)).replace("HOST:6379", address).splitlines()
    assert [line.split()[0] for line in lines] == ["advbench"] * 3
    return [[*line.split()[1:], "--data-root", "data", "--device", "cpu"] for line in lines]


@pytest.mark.slow
def test_ray_the_suite_s_own_processes_and_torchrun_leave_the_same_records(
    repo: Path, tmp_path: Path, tiny, command, launched, cluster: Cluster
):
    task = suite(tmp_path, tiny, more=STANDARD)
    alone, _, many = grow(repo, task, cluster.address)
    env = {name: value for name, value in cluster.reached.items() if name != "RAY_ADDRESS"}
    ray = command(tmp_path, *many, "--results", "ray", env=env)
    assert ray.returncode == 0, ray.stderr
    assert command(tmp_path, *alone, "--results", "here").returncode == 0
    assert launched(tmp_path, task).returncode == 0

    for label in ("pair", "standard"):
        one, *others = (
            load(tmp_path / results / "records" / "t" / f"{label}-s0" / "record.json")
            for results in ("ray", "here", "launched")
        )
        assert one.status == "ok"
        assert one.scores is not None
        assert [other.scores for other in others] == [one.scores] * 2
        assert [stable(other) for other in others] == [stable(one)] * 2
    for path in (tmp_path / "here" / "records").rglob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "ray" / path.relative_to(tmp_path / "here")).read_bytes()


@pytest.mark.slow
def test_who_takes_too_long_or_raises_fails_as_anywhere_else_and_is_not_tried_again(
    tmp_path: Path, tiny, command, cluster: Cluster
):
    hangs = suite(tmp_path, tiny, "pause = 100", more="[resources]\nminutes = 0.05\n")
    hangs = hangs.rename(tmp_path / "hangs.toml")
    raises = suite(tmp_path, tiny, 'trouble = "raise"')
    asked = ("run", hangs, raises, "--data-root", "data", "--device", "cpu", "--executor", "ray")
    answer = command(tmp_path, *asked, env=cluster.reached)

    assert answer.returncode == 1, answer.stdout + answer.stderr
    assert "try 2" not in answer.stdout
    # Both processes hang; whichever is ended first, the other one has no word of why.
    hung, raised = (
        load(tmp_path / "results" / "records" / task / "pair-s0" / "record.json") for task in ("hangs", "t")
    )
    assert hung.reason.startswith("took more than 0.05 minutes; raise resources.minutes")
    assert raised.reason == "RankError: rank 1 of 2: ValueError: rank one does not like epoch 1"


@pytest.mark.slow
def test_workers_end_with_a_driver_that_is_killed_and_the_next_run_goes_on(
    tmp_path: Path, tiny, command, cluster: Cluster
):
    task = suite(tmp_path, tiny, "processes = 1\npause = 0.3")
    asked = ("run", task, "--data-root", "data", "--device", "cpu", "--executor", "ray")
    log = tmp_path / "results" / "runs" / "t" / "pair-s0" / "log.txt"
    with begun(tmp_path, cluster.reached, *asked) as driver:
        until(lambda: log.exists() and "in epoch 1" in log.read_text(encoding="utf-8"))
        driver.kill()
    until(lambda: not any(workers(cluster.members("head"))))
    before = log.read_text(encoding="utf-8").count("in epoch 0")
    assert command(tmp_path, *asked, env=cluster.reached).returncode == 0

    assert load(tmp_path / "results" / "records" / "t" / "pair-s0" / "record.json").status == "ok"
    assert log.read_text(encoding="utf-8").count("in epoch 0") == before  # from its checkpoint


@pytest.mark.slow
def test_a_ray_that_is_started_for_a_run_leaves_no_process_and_no_file(repo: Path, tmp_path: Path, tiny, command_env):
    task = suite(tmp_path, tiny, "processes = 1\npause = 0.3")
    room = Path(tempfile.mkdtemp(prefix="abt-"))
    env = command_env | {"HOME": str(tmp_path), "TMPDIR": str(room), "RAY_worker_niceness": "0"}
    asked = grow(repo, task)[1]
    log = tmp_path / "results" / "runs" / "t" / "pair-s0" / "log.txt"
    with begun(tmp_path, env, *asked) as driver:
        until(lambda: log.exists() and "in epoch 0" in log.read_text(encoding="utf-8"))
        driver.kill()
    # Ray ends with its driver, too; its two agents look only once in a while whether it has.
    until(lambda: all(b"Agent" in read(pid, "cmdline") for pid in members(driver.pid)))
    for pid in members(driver.pid):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(room)
    room.mkdir()
    with begun(tmp_path, env, *asked) as driver:
        said = driver.communicate(timeout=240)[0]
    assert driver.returncode == 0, said

    until(lambda: not members(driver.pid))
    assert [path.name for path in room.iterdir() if path.name.startswith(("abr-", ".advbench"))] == []
    assert not (tmp_path / ".ray").exists()
    shutil.rmtree(room)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: Connection refused .*waited at most 10 s.*"),
        (["--address", "ray://127.0.0.1:1"], "--address ray://127.0.0.1:1: start advbench on a node of the cluster.*"),
        (["--device", "cuda:1"], "--device cuda:1: Ray says which device a job has; say auto, cpu or cuda"),
        (["--per-device", "2"], "--per-device: Ray gives a job a whole device; leave it out"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, tiny, command, options: list[str], line: str):
    answer = command(tmp_path, "run", suite(tmp_path, tiny), "--data-root", "data", "--executor", "ray", *options)

    assert answer.returncode == 2
    assert re.fullmatch(f"advbench: {line}\n", answer.stderr), answer.stderr


@pytest.mark.slow
def test_an_address_that_is_no_ray_s_is_told_after_some_seconds(tmp_path: Path, tiny, command):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        on = ("--executor", "ray", "--address", address)
        answer = command(tmp_path, "run", suite(tmp_path, tiny), "--data-root", "data", *on)

    assert answer.returncode == 2
    assert time.monotonic() - started < 60
    assert answer.stderr.strip().splitlines()[-1].startswith(f"advbench: --address {address}: Failed to connect to Ray")


@pytest.mark.slow
def test_another_token_than_the_cluster_s_is_told(tmp_path: Path, tiny, command, cluster: Cluster):
    env = cluster.reached | {"RAY_AUTH_TOKEN": "0" * 64}
    answer = command(tmp_path, "run", suite(tmp_path, tiny), "--data-root", "data", "--executor", "ray", env=env)

    assert answer.returncode == 2
    assert "asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in answer.stderr.splitlines()[-1]


def test_without_ray_it_is_said_what_to_install(tmp_path: Path, tiny, command_env: dict[str, str]):
    script = "import sys; sys.modules['ray'] = None; from advbench.cli import main; main()"
    asked = ["run", str(suite(tmp_path, tiny)), "--executor", "ray"]
    answer = subprocess.run(
        [sys.executable, "-c", script, *asked], cwd=tmp_path, env=command_env, capture_output=True, text=True
    )

    assert answer.returncode == 2
    assert answer.stderr == "advbench: --executor ray: Ray is not installed; pip install 'advbench[cluster]'\n"


@pytest.mark.parametrize(
    ("more", "asked"), [("", None), ("[resources]\nmemory_gib = 2\n", 2), ("[resources]\nmemory_gib = 9\n", 3)]
)
def test_a_task_reserves_the_memory_that_its_job_may_take_and_no_more_than_a_node_has(
    tmp_path: Path, tiny, more: str, asked: int | None
):
    reserved: dict[str, Any] = {}

    class Task:
        def options(self, **options: Any) -> Task:
            reserved.update(options)
            return self

        def remote(self, *_: Any) -> None: ...

    [item] = resolve(tiny(tmp_path, more=more), tmp_path / "data", {}).items
    driver = object.__new__(_Driver)
    driver.ray, driver.results = SimpleNamespace(remote=lambda _: Task()), tmp_path
    driver.told, driver.seen, driver.having = SimpleNamespace(device="cpu"), True, {}  # type: ignore[assignment]
    driver.most = {"CPU": 8, "memory": 3 * GIB}
    driver._send(_Try(item), 0)

    assert reserved["memory"] == (asked and asked * GIB)
    assert (reserved["num_cpus"], reserved["num_gpus"]) == (1, 0)


def begun(folder: Path, env: dict[str, str], *asked: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "advbench", *map(str, asked)],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def workers(pids: list[int]) -> list[int]:
    return [pid for pid in pids if b"multiprocessing.spawn" in read(pid, "cmdline")]


def test_the_page_names_tests_that_exist(repo: Path):
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (repo / "docs" / "cluster.md").read_text("utf-8"))
    assert len(named) > 5
    for file, name in named:
        assert f"def {name}(" in (repo / file).read_text("utf-8"), f"{file}::{name}"


def test_the_texts_for_slurm_are_bash(repo: Path):
    texts = re.findall(
        r"<!-- sbatch -->\n```bash\n(.*?)```", (repo / "docs" / "cluster.md").read_text("utf-8"), re.DOTALL
    )
    assert len(texts) == 2
    for text in texts:
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert (checked.returncode, checked.stderr) == (0, "")
        assert text.startswith("#!/bin/bash\n#SBATCH ")
