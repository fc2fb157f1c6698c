"""This machine, in the words that records use; torch is loaded only where a driver is there."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Means:
    """What jobs can have: of this machine, or of several."""

    accelerators: tuple[str, ...]
    """Their names, which mean something on this machine only."""
    cores: int


@cache
def cpu() -> str:
    """The kind of CPU, by all that says how it computes: two kinds may round differently."""
    found = cpu_facts()
    if not found:
        return f"cpu: {platform.processor() or platform.machine()}"
    return f"cpu: {' '.join(found.get(key, '?') for key in ('vendor_id', 'cpu family', 'model', 'model name'))}"


@cache
def cpu_facts() -> dict[str, str]:
    """What Linux says about the last core; nothing elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def accelerators() -> list[str]:
    """CUDA devices of this machine."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return []
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def device_name(device: str) -> str:
    """What a record says of a job that ran on `device`: cpu or cuda:N."""
    if not device.startswith("cuda"):
        return cpu()
    import torch

    return torch.cuda.get_device_name(device)


def means(device: str) -> Means:
    """What this machine has for jobs on `device`: auto, cpu, cuda or cuda:N."""
    return Means(() if device == "cpu" else tuple(accelerators()), cores())
