"""Records made by hand, for tests of what reads them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from advbench.record import Accuracy, Cost, Record, Scores, save

JOB = {
    "data": {"name": "digits"},
    "data_sha256": "9a" * 32,
    "model": {"name": "digits-cnn"},
    "threat": {"norm": "Linf", "eps": "3/20"},
    "training": {"epochs": 30},
    "evaluation": {"attacks": [{"name": "pgd", "steps": 20}], "checkpoint": "best"},
    "protocol": 2,
    "evaluation_protocol": 3,
}
BUILD = {"torch": "2.15.0", "device": "cpu", "host": "vm", "threads": 1, "deterministic": True}


def lay(
    results: Path,
    label: str,
    seed: int,
    stands: np.ndarray,
    *,
    clean: np.ndarray | None = None,
    index: np.ndarray | None = None,
    job: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Write a record of task `t` whose examples withstand PGD where `stands` says so; returns its folder."""
    n = len(stands)
    right = np.ones(n, bool) if clean is None else clean
    broken = ["clean" if not c else None if s else "pgd" for c, s in zip(right, stands, strict=True)]
    index = np.arange(n) if index is None else index
    columns = {"index": index, "label": index % 10, "predicted": index % 10}
    parquet = io.BytesIO()
    pq.write_table(pa.table(columns | {"broken_by": pa.array(broken, pa.string())}), parquet)
    accuracies = [Accuracy(accuracy=float(x.mean()), low=0, high=1, n=n) for x in (right, right & stands)]
    attacks = {"pgd": accuracies[1].accuracy}
    values: dict[str, Any] = {
        "id": f"{label}-{seed}",
        "task": "t",
        "defense": label,
        "label": label,
        "seed": seed,
        "status": "ok",
        "job": JOB | {"defense": {"name": label}} | (job or {}),
        "scores": Scores(clean=accuracies[0], robust=accuracies[1], attacks=attacks, curve={"1/10": 0.5}),
        "cost": Cost(train_seconds=10 + seed, train_forward=600, train_backward=400),
        "provenance": BUILD | {"weights_sha256": {"best": f"{label}-{seed}"}} | (provenance or {}),
    }
    folder = results / "records" / "t" / f"{label}-s{seed}"
    save(Record.model_validate(values | fields), folder, {"examples.parquet": parquet.getvalue()})
    return folder
