"""Results folders made by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from advbench.seal import keep

STANDS = np.arange(20) % 3 > 0


@pytest.fixture
def lay(lay_record) -> Callable[..., Path]:
    """A function: results folder, label, seed=0, fields... -> its record, with weights, a checkpoint and a journal."""

    def make(results: Path, label: str, seed: int = 0, **fields) -> Path:
        runs = results / "runs" / "t" / f"{label}-s{seed}"
        runs.mkdir(parents=True, exist_ok=True)
        weights = save({"weight": torch.full((3,), float(seed))})
        for name in ("best", "last"):
            (runs / f"{name}.safetensors").write_bytes(weights)
        for _ in range(2):
            keep(runs / "journal" / "best" / "0.safetensors", weights)
        (runs / "checkpoint.pt").write_bytes(b"PK\5\6" + bytes(18))
        digests = dict.fromkeys(("best", "last"), hashlib.sha256(weights).hexdigest())
        provenance = {"weights_sha256": digests} | fields.pop("provenance", {})
        return lay_record(results, label, seed, fields.pop("stands", STANDS), provenance=provenance, **fields)

    return make


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """A function: folder -> every file in it but the lock, by its path."""

    def read(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    return read
