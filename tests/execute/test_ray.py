"""Jobs on Ray: the same records as anywhere else, limits, interrupts, and what is said where there is no Ray."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import STANDARD, suite
from ray_nodes import Cluster

from advbench.record import load
from advbench.stable import stable


@pytest.fixture(scope="module")
def cluster(command_env: dict[str, str]) -> Iterator[Cluster]:
    """One node on this machine."""
    found = Cluster(command_env, 2)
    yield found
    found.close()


def test_ray_the_suite_s_own_processes_and_torchrun_leave_the_same_records(
    tmp_path: Path, tiny, command, launched, cluster: Cluster
):
    task = suite(tmp_path, tiny, more=STANDARD)
    on = ("run", task, "--data-root", "data", "--device", "cpu")
    ray = command(tmp_path, *on, "--results", "ray", "--executor", "ray", env=cluster.reached)
    assert ray.returncode == 0, ray.stderr
    assert command(tmp_path, *on, "--results", "here").returncode == 0
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
