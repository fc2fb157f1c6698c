"""One process of a group that a test asks for."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import torch

from advbench.parallel import joined


def serve(file: str, function: str, rank: int, world: int, folder: Path) -> None:
    """Meet the others in `folder`, call the function of that file with the Group, and leave there what it returns.

    That is plain values and tensors.
    """
    with (folder / f"{rank}.txt").open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("group_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["group_test"] = module
    spec.loader.exec_module(module)
    with joined(rank, world, torch.device("cpu"), f"file://{folder}/meet") as group:
        torch.save(getattr(module, function)(group), folder / f"{rank}.pt")
