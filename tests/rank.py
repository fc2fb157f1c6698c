"""One process of a group that a test asks for: `python rank.py FILE FUNCTION RANK WORLD MEET OUT`.

The function gets its Group and returns plain values and tensors.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import torch

from advbench.parallel import joined


def main(file: str, function: str, rank: int, world: int, meet: str, out: str) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location("group_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["group_test"] = module
    spec.loader.exec_module(module)
    with joined(rank, world, torch.device("cpu"), meet) as group:
        torch.save(getattr(module, function)(group), Path(out) / f"{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6])
