"""Nodes of a real Ray cluster on this machine, each a session of processes that can be killed as one."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PORTS = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
"""Any that are free: several nodes share this machine."""


def free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def members(session: int) -> list[int]:
    """All processes of a session but those that have ended."""
    found: list[int] = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, its = stat.read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
        except OSError:  # it has ended
            continue
        if int(its) == session and state != "Z":
            found.append(int(stat.parent.name))
    return found


class Cluster:
    """A head, and nodes that join it; its token is its own."""

    def __init__(self, environment: Mapping[str, str], cpus: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="abr-"))  # short: a socket's path has 107 characters
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        # A node that is killed is missed after a second and not after half a minute.
        lost = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
        # By itself Ray has its workers give way to whatever else the machine does, which here are other tests.
        alike = {"RAY_worker_niceness": "0"}
        self.environment = {**environment, **quiet, **lost, **alike}
        self.address = f"127.0.0.1:{free()}"
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", f"--ray-client-server-port={free()}", "--include-dashboard=false"]
        self._start("head", cpus, [*head, f"--temp-dir={self.folder}", "--node-ip-address=127.0.0.1"], {}, [])

    @property
    def reached(self) -> dict[str, str]:
        """The environment of a driver."""
        return {**self.environment, "RAY_ADDRESS": self.address}

    def join(
        self, name: str, cpus: int = 1, environment: Mapping[str, str] | None = None, before: Sequence[str] = ()
    ) -> None:
        """Start a node; `before`: a command that runs it."""
        self._start(name, cpus, [f"--address={self.address}", "--node-ip-address=127.0.0.1"], environment or {}, before)

    def _start(
        self, name: str, cpus: int, options: list[str], environment: Mapping[str, str], before: Sequence[str]
    ) -> None:
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--object-store-memory=100000000"]
        log = self.folder / f"{name}.txt"
        with log.open("wb") as out:
            self.nodes[name] = subprocess.Popen(
                [*before, *start, *PORTS, f"--num-cpus={cpus}", f"--node-name={name}", *options],
                env={**self.environment, **environment},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while "--block" not in log.read_text(encoding="utf-8"):
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            assert self.nodes[name].poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.1)

    def members(self, name: str) -> list[int]:
        """All processes of a node."""
        return members(self.nodes[name].pid)

    def kill(self, name: str) -> None:
        """The machine is gone: all of its processes at once."""
        while left := self.members(name):
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        self.nodes.pop(name).wait()

    def close(self) -> None:
        for name in list(self.nodes):
            self.kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)
