"""The meter of a device that is not here, behind the names that NVML gives it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch

from advbench.energy import Meter

GPU = torch.device("cuda:1")


class NVMLError(Exception):
    """What NVML raises."""


class Nvml(SimpleNamespace):
    """Two devices; `millijoules` and `processes` are those of the second one."""

    NVMLError = NVMLError
    millijoules = 5_000_000
    processes = 1
    begun = False

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's name
        self.begun = True

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if not self.begun:
            raise NVMLError("Uninitialized")
        assert uuid == "GPU-of-1"
        return "handle"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[int]:  # noqa: N802
        assert handle == "handle"
        return list(range(self.processes))

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:  # noqa: N802
        assert handle == "handle"
        if self.millijoules < 0:
            raise NVMLError("Not Supported")
        return self.millijoules


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    found = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", found)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"of-{device.index}"))
    return found


def test_it_counts_from_when_it_was_made_in_joules(nvml: Nvml):
    meter = Meter(GPU)
    nvml.millijoules += 12_340

    assert meter.joules() == 12.3


@pytest.mark.parametrize("at_the_end", [False, True])
def test_what_another_process_took_a_part_of_is_nobody_s(nvml: Nvml, at_the_end: bool):
    nvml.processes = 1 if at_the_end else 2
    meter = Meter(GPU)
    nvml.processes = 2 if at_the_end else 1

    assert meter.joules() is None


def test_a_device_without_a_meter_says_nothing(nvml: Nvml):
    nvml.millijoules = -1

    assert Meter(GPU).joules() is None


def test_a_device_that_nvml_does_not_know_says_nothing(nvml: Nvml, monkeypatch: pytest.MonkeyPatch):
    def unknown(uuid: str) -> str:
        raise NVMLError(f"{uuid}: Not Found")

    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByUUID", unknown, raising=False)

    assert Meter(GPU).joules() is None


def test_without_nvml_nothing_is_said(nvml: Nvml, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert Meter(GPU).joules() is None


def test_nothing_is_said_of_a_cpu(nvml: Nvml):
    assert Meter(torch.device("cpu")).joules() is None
