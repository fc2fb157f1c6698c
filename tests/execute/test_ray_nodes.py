"""Ray over two nodes: one is lost in the middle of its jobs, one lacks what the other has, one is of another kind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pair import suite
from ray_nodes import Cluster

from advbench.record import Record, load
from advbench.stable import stable

pytestmark = pytest.mark.slow

HIDE = 'mount -t tmpfs none "$0" && exec "$@"'
"""A node that does not see a folder: in a mount namespace of its own."""
SLOW = 'file = "pair.py"\nlabel = "slow-{}"\nprocesses = 1\npause = 0.5\n'
MORE = f"[[defense]]\n{SLOW.format('b')}"
BOTH = ("t/slow-a-s0", "t/slow-b-s0")


def hidden(folder: Path) -> list[str]:
    before = ["unshare", "--mount", "sh", "-c", HIDE, str(folder)]
    if subprocess.run([*before, "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces cannot be made here: not root")
    return before


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `home`, which one node does not see, and `data`, which all do."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "home").mkdir()
    return folder


@pytest.fixture(scope="module")
def cluster(command_env: dict[str, str], place: Path) -> Iterator[Cluster]:
    """A head without room for jobs, one node with the driver's folder and one without it."""
    before = hidden(place / "home")
    found = Cluster(command_env, 0)
    try:
        found.join("near")
        found.join("far", before=before)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def task(place: Path, tiny) -> Path:
    """Two jobs of one process, of some seconds each. Beside it `two.toml`: one that two processes share."""
    file = suite(place, tiny, "processes = 2\npause = 0.2", epochs=4)
    file.rename(place / "home" / "two.toml")
    longer = ("epochs = 1", 'epochs = 4\nprecision = "fp32"')
    tiny(place, "t", longer, ('name = "standard"', SLOW.format("a")), more=MORE)
    for name in ("pair.py", "t.toml"):
        (place / name).rename(place / "home" / name)
    return place / "home" / "t.toml"


@pytest.fixture(scope="module")
def undisturbed(place: Path, task: Path, command_env: dict[str, str]) -> Callable[[str], Record]:
    """A function: task, label and seed -> the record of that job, which Ray knows nothing of."""
    asked = ["-m", "advbench", "run", "--data-root", str(place / "data"), "--device", "cpu", "--results", "alone"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words in ([*asked, "t.toml"], [*torchrun, *asked, "two.toml"]):
        subprocess.run([sys.executable, *words], cwd=task.parent, env=command_env, capture_output=True, check=True)
    return lambda job: load(task.parent / "alone" / "records" / job / "record.json")


@pytest.fixture
def started(place: Path, task: Path, cluster: Cluster) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function: results, --only -> `advbench run --executor ray` of both task files, begun."""
    processes: list[subprocess.Popen[str]] = []

    def start(results: str, only: str) -> subprocess.Popen[str]:
        files = [str(task), str(task.with_name("two.toml"))]
        asked = [*files, "--data-root", str(place / "data"), "--device", "cpu", "--results", results]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "advbench", "run", *asked, "--executor", "ray", "--only", only],
                cwd=task.parent,
                env=cluster.reached,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        with process:
            process.kill()


def until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def log(task: Path, results: str, job: str) -> str:
    file = task.parent / results / "runs" / job / "log.txt"
    return file.read_text(encoding="utf-8") if file.exists() else ""


def test_a_rank_that_is_killed_on_another_node_has_the_job_tried_again(
    task: Path, cluster: Cluster, started, undisturbed
):
    run = started("ranks", "two/pair-s0")
    until(lambda: "in epoch 1" in log(task, "ranks", "two/pair-s0"), run)
    near, far = ([pid for pid in cluster.members(name) if is_worker(pid)] for name in ("near", "far"))
    assert (len(near), len(far)) == (1, 1)
    os.kill(far[0], signal.SIGKILL)
    said = run.communicate(timeout=240)[0]

    assert run.returncode == 0, said
    assert "signal 9 (SIGKILL)" in said
    assert "try 2 of 4" in said
    found = load(task.parent / "ranks" / "records" / "two" / "pair-s0" / "record.json")
    assert stable(found) == stable(undisturbed("two/pair-s0"))


def test_versions_that_differ_between_nodes_are_one_line(place: Path, task: Path, cluster: Cluster, command):
    """The other node's Python finds a torch of another version first, as far as it tells."""
    told = place / "other" / "torch-9.9.dist-info" / "METADATA"
    told.parent.mkdir(parents=True)
    told.write_text("Metadata-Version: 2.1\nName: torch\nVersion: 9.9\n", encoding="utf-8")
    path = os.pathsep.join([str(place / "other"), cluster.environment.get("PYTHONPATH", "")])
    cluster.join("odd", environment={"PYTHONPATH": path})
    try:
        asked = ("run", task, "--data-root", place / "data", "--device", "cpu", "--results", "odd")
        answer = command(task.parent, *asked, "--executor", "ray", env=cluster.reached)
    finally:
        cluster.kill("odd")

    assert answer.returncode == 2
    line = answer.stderr.splitlines()[-1]
    assert re.fullmatch(r"advbench: node odd has torch 9\.9 where the driver has .*; install the same .*", line)
    assert not list((task.parent / "odd").rglob("record.json"))


def test_jobs_go_where_their_data_are_and_data_that_no_node_has_are_one_line(
    place: Path, task: Path, cluster: Cluster, command
):
    """They lie in `home`, which one node sees and the other does not."""
    data = place / "home" / "moved"
    data.mkdir()
    (place / "data" / "tiny.npz").rename(data / "tiny.npz")
    try:
        asked = ("run", task, "--data-root", data, "--device", "cpu", "--executor", "ray", "--results")
        both = command(task.parent, *asked, "some", "--only", "slow-*", env=cluster.reached)  # one after the other
        assert both.returncode == 0, both.stdout + both.stderr
        cluster.kill("near")
        answer = command(task.parent, *asked, "none", env=cluster.reached)
    finally:
        cluster.join("near")
        (data / "tiny.npz").rename(place / "data" / "tiny.npz")

    assert answer.returncode == 2
    line = answer.stderr.splitlines()[-1]
    assert line.startswith("advbench: node far, like all of them: ")
    assert "--data-root" in line


def test_sigterm_brings_checkpoints_home_and_the_next_run_goes_on(task: Path, started, command, undisturbed):
    run = started("stopped", "slow-*")
    until(lambda: all("in epoch 0" in log(task, "stopped", job) for job in BOTH), run)
    run.send_signal(signal.SIGTERM)
    said = run.communicate(timeout=120)[0]
    assert run.returncode == 143, said
    assert all((task.parent / "stopped" / "runs" / job / "checkpoint.pt").exists() for job in BOTH)

    run = started("stopped", "slow-*")
    said = run.communicate(timeout=240)[0]
    assert run.returncode == 0, said
    for job in BOTH:
        assert log(task, "stopped", job).count("in epoch") == log(task, "alone", job).count("in epoch")
        found = load(task.parent / "stopped" / "records" / job / "record.json")
        assert stable(found) == stable(undisturbed(job))


def test_jobs_of_a_node_that_is_lost_go_on_elsewhere_and_end_the_same(
    task: Path, cluster: Cluster, started, undisturbed
):
    """The last one here: it costs a node."""
    run = started("lost", "slow-*")
    files = [task.parent / "lost" / "runs" / job / "checkpoint.pt" for job in BOTH]
    until(lambda: all(file.exists() for file in files), run)
    cluster.kill("far")
    said = run.communicate(timeout=240)[0]

    assert run.returncode == 0, said
    assert re.search(r"note   t/slow-[ab]-s0  its node was lost: .*; going on, try 2 of 4", said)
    for job in BOTH:
        # It went on from the checkpoint that had come home.
        assert log(task, "lost", job).count("in epoch 0") == log(task, "alone", job).count("in epoch 0")
        found = load(task.parent / "lost" / "records" / job / "record.json")
        assert stable(found) == stable(undisturbed(job))
        folder = Path("records") / job
        for name in found.files:
            assert (task.parent / "lost" / folder / name).read_bytes() == (
                task.parent / "alone" / folder / name
            ).read_bytes()


def is_worker(pid: int) -> bool:
    return b"multiprocessing.spawn" in Path(f"/proc/{pid}/cmdline").read_bytes()
