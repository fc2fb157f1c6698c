"""The energy that an accelerator takes while a job has it, by the device's own meter.

NVIDIA's count from the Volta generation on, in millijoules since the driver was loaded; `nvidia-ml-py` reads them. A
CPU's meter counts the whole package and is root's on most machines, so that nothing is said of a CPU.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch


class Meter:
    """Counts from when it is made.

    device: what the job runs on.
    """

    def __init__(self, device: torch.device) -> None:
        self._nvml, self._handle = _found(device)
        self._since = self._read()

    def joules(self) -> float | None:
        """Since then; None where nothing counts, or where another process had the device too, at either end."""
        now = self._read()
        return None if now is None or self._since is None else round((now - self._since) / 1000, 1)

    def _read(self) -> int | None:
        """Millijoules, while this process is alone there."""
        if self._nvml is None:
            return None
        try:
            if len(self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) > 1:
                return None
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError:  # one that is older, or shared between virtual machines
            return None


def _found(device: torch.device) -> tuple[Any, Any]:
    """NVML and what it calls the device; two Nones where either is missing."""
    if device.type != "cuda":
        return None, None
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None, None
    try:
        nvml.nvmlInit()
        # By its own name: numbers are not the same there where CUDA_VISIBLE_DEVICES says which there are.
        return nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except nvml.NVMLError:
        return None, None
