"""This machine, in the words of records."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest
import torch

from advbench import machine
from advbench.record import load

FACTS = """\
processor : 0
vendor_id : Nobody
cpu family\t: 1

processor\t: 1
vendor_id\t: Genuine
cpu family\t: 6
a line without facts
model name\t: Fast: 2 GHz
flags\t\t:
"""


@pytest.fixture
def asked_anew():
    """Whatever the machine was asked is asked again, before and after the test."""
    known = (machine.cpu, machine.cpu_facts, machine.accelerators)
    for one in known:
        one.cache_clear()
    yield
    for one in known:
        one.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_a_cpu_is_named_by_what_linux_says_of_its_last_core(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "read_text", lambda path, **_: FACTS if str(path) == "/proc/cpuinfo" else "")
    facts = {"vendor_id": "Genuine", "cpu family": "6", "model name": "Fast: 2 GHz", "flags": "", "processor": "1"}

    assert machine.cpu_facts() == facts
    assert machine.cpu() == "cpu: Genuine 6 ? Fast: 2 GHz"


@pytest.mark.usefixtures("asked_anew")
def test_elsewhere_a_cpu_is_named_by_its_kind(monkeypatch: pytest.MonkeyPatch):
    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(platform, "processor", str)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")

    assert machine.cpu_facts() == {}
    assert machine.cpu() == "cpu: arm64"


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3, 5} if pid == 0 else {1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert machine.cores() == 3
    assert machine.means("cpu") == machine.Means((), 3)

    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


@pytest.mark.usefixtures("asked_anew")
@pytest.mark.parametrize(("nodes", "count"), [([], 0), (["/dev/nvidia0", "/dev/nvidia1"], 2)])
def test_accelerators_are_asked_for_only_where_a_driver_is(monkeypatch: pytest.MonkeyPatch, nodes, count):
    monkeypatch.setattr(Path, "glob", lambda path, pattern: iter(nodes))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"name of {device}")
    found = ["cuda:0", "cuda:1"][:count]

    assert machine.accelerators() == found
    assert machine.means("auto") == machine.Means(tuple(found), machine.cores())
    assert machine.means("cpu").accelerators == ()
    assert machine.device_name("cuda:1") == "name of cuda:1"


def test_a_cpu_is_named_as_in_records(repo: Path):
    [record, *_] = sorted((repo / "leaderboard" / "records").glob("*/*/record.json"))
    said = load(record).provenance["device"]

    assert machine.cpu().startswith("cpu: ")
    assert machine.device_name("cpu") == machine.cpu()
    assert said.startswith("cpu: ")


def test_there_is_a_core_and_asking_for_accelerators_is_safe():
    assert machine.cores() >= 1
    assert all(name.startswith("cuda:") for name in machine.accelerators())
