"""torchrun over two machines, as far as network namespaces are machines, and torchrun that starts all of them again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import suite

from advbench.record import load
from advbench.stable import stable

pytestmark = pytest.mark.slow

LAUNCHER = [sys.executable, "-m", "torch.distributed.run"]
BLOCKS = ('attacks = ["fgsm"]', 'attacks = ["fgsm", "pgd"]\nblock = 10')
"""Of 32 test examples: the evaluation has pieces to be shared."""


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces with a cable between them; skipped where they cannot be made."""
    names = [f"advbench-{os.getpid()}-{end}" for end in "ab"]
    commands = [f"ip netns add {name}" for name in names]
    commands.append(f"ip link add veth0 netns {names[0]} type veth peer name veth0 netns {names[1]}")
    for number, name in enumerate(names, 1):
        commands.append(f"ip -n {name} address add 198.51.100.{number}/30 dev veth0")
        commands += [f"ip -n {name} link set {link} up" for link in ("lo", "veth0")]
    try:
        for command in commands:
            try:
                done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
            except FileNotFoundError:
                pytest.skip("network namespaces need the ip command")
            if done.returncode:
                pytest.skip(f"network namespaces cannot be made here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_torchrun_between_two_machines_leaves_the_record_of_one(
    tmp_path: Path, tiny, command, command_env: dict[str, str], namespaces: list[str]
):
    task = suite(tmp_path, tiny)
    task.write_text(task.read_text(encoding="utf-8").replace(*BLOCKS), encoding="utf-8")
    asked = ["run", str(task), "--data-root", "data", "--device", "cpu"]
    meet = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=198.51.100.1:29500"]
    machines = [
        subprocess.Popen(
            # By itself torchrun asks the machine's name who of them hosts the meeting, and both have the same.
            [
                *("ip", "netns", "exec", name, *LAUNCHER, *meet, f"--rdzv-conf=is_host={number == 1}"),
                *(f"--local-addr=198.51.100.{number}", "-m", "advbench", *asked, "--results", "there"),
            ],
            cwd=tmp_path,
            env=command_env | {"GLOO_SOCKET_IFNAME": "veth0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number, name in enumerate(namespaces, 1)
    ]
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], "\n".join(said)
    assert sum("board: " in words for words in said) == 1
    assert command(tmp_path, *asked, "--results", "here").returncode == 0

    here, there = (
        load(tmp_path / results / "records" / "t" / "pair-s0" / "record.json") for results in ("here", "there")
    )
    assert here.scores is not None
    assert here.scores == there.scores
    assert stable(here) == stable(there)


def test_a_launcher_that_starts_all_again_goes_on_from_the_checkpoint(
    tmp_path: Path, tiny, command_env: dict[str, str]
):
    task = suite(tmp_path, tiny, "pause = 0.2", epochs=4)
    elastic = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m", "advbench"]
    asked = ["run", str(task), "--data-root", "data", "--device", "cpu"]
    with (tmp_path / "said.txt").open("w", encoding="utf-8") as out:
        launcher = subprocess.Popen(
            [*LAUNCHER, *elastic, *asked],
            cwd=tmp_path,
            env=command_env | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=out,
            text=True,
        )
    said = tmp_path / "said.txt"
    deadline = time.monotonic() + 240
    while said.read_text(encoding="utf-8").count("in epoch 1") < 4:
        assert launcher.poll() is None, said.read_text(encoding="utf-8")
        assert time.monotonic() < deadline
        time.sleep(0.1)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text(encoding="utf-8").split()
    assert len(children) == 2
    os.kill(int(children[1]), signal.SIGKILL)

    assert launcher.wait(240) == 0, said.read_text(encoding="utf-8")
    assert load(tmp_path / "results" / "records" / "t" / "pair-s0" / "record.json").status == "ok"
    assert said.read_text(encoding="utf-8").count("in epoch 0") == 2 * 4  # once in each process, and not again
