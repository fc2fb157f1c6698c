"""This machine, in the words of records."""

from __future__ import annotations

from pathlib import Path

from advbench import machine
from advbench.record import load


def test_a_cpu_is_named_as_in_records(repo: Path):
    [record, *_] = sorted((repo / "leaderboard" / "records").glob("*/*/record.json"))
    said = load(record).provenance["device"]

    assert machine.cpu().startswith("cpu: ")
    assert machine.device_name("cpu") == machine.cpu()
    assert said.startswith("cpu: ")


def test_there_is_a_core_and_asking_for_accelerators_is_safe():
    assert machine.cores() >= 1
    assert all(name.startswith("cuda:") for name in machine.accelerators())
