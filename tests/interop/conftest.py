"""Records that a board elsewhere would take, made by hand."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advbench.record import Accuracy, Cost, Epoch, Record, Scores, save

Lay = Callable[..., Path]

JOB: dict[str, Any] = {
    "data": {"name": "cifar10", "test": None, "unlabelled": None},
    "data_sha256": "9a" * 32,
    "model": {"name": "preact-resnet18"},
    "threat": {"norm": "Linf", "eps": "8/255"},
    "training": {"epochs": 2, "lr": 0.1, "optimizer": "sgd", "compile": None, "milestones": [0.5]},
    "evaluation": {"attacks": [{"name": "autoattack"}], "checkpoint": "best", "votes": None},
    "protocol": 2,
    "evaluation_protocol": 3,
}

EPOCH: dict[str, Any] = {"top_class": 0.1, "eps": 0.031, "lr": 0.1, "forward": 500, "backward": 500}

HISTORY = (
    Epoch(epoch=1, loss=1.7, clean=0.61, fgsm=0.4, pgd=0.3, seconds=10.5, **EPOCH),
    Epoch(epoch=2, loss=None, clean=0.71, fgsm=0.5, pgd=0.43, seconds=9.5, extra={"steps": 7.0}, **EPOCH),
)


def examples(n: int = 4, **more: Any) -> bytes:
    """An examples.parquet, every second row broken."""
    file = io.BytesIO()
    columns: dict[str, Any] = {
        "index": pa.array(range(n), pa.int64()),
        "label": pa.array([1] * n, pa.int64()),
        "predicted": pa.array([1] * n, pa.int64()),
        "margin": pa.array([0.1 * i for i in range(n)], pa.float32()),
        "distance": pa.array([None if i % 2 else 0.01 * i for i in range(n)], pa.float64()),
        "broken_by": pa.array([None if i % 2 else "apgd-ce" for i in range(n)], pa.string()),
        "forward": pa.array([10] * n, pa.int64()),
        "backward": pa.array([9] * n, pa.int64()),
    }
    pq.write_table(pa.table(columns | more), file)
    return file.getvalue()


@pytest.fixture
def lay() -> Lay:
    """Writes one record into results/records/<task>/<label>-s<seed> and returns its folder.

    `job` replaces tables of the job field by field; `beside` is what lies beside the record.
    """

    def write(
        results: Path,
        label: str = "pgd-at",
        seed: int = 0,
        *,
        task: str = "cifar10-linf",
        folder: str | None = None,
        clean: float = 0.8357,
        robust: float | None = 0.5024,
        n: int = 10_000,
        protocol: str = "autoattack",
        job: dict[str, Any] | None = None,
        scores: dict[str, Any] | None = None,
        beside: dict[str, bytes] | None = None,
        error: str | None = None,
        **fields: Any,
    ) -> Path:
        resolved = JOB | {"defense": {"name": label, "steps": 10, "attack_bn": "train"}}
        for key, value in (job or {}).items():
            old = resolved.get(key)
            resolved[key] = old | value if isinstance(old, dict) and isinstance(value, dict) else value
        found = Scores(
            clean=Accuracy(accuracy=clean, low=clean - 0.01, high=clean + 0.01, n=n),
            robust=None
            if robust is None
            else Accuracy(accuracy=robust, low=robust - 0.01, high=robust + 0.01, n=n, protocol=protocol),
            attacks={} if robust is None else {"apgd-ce": robust, protocol: robust},
            **(scores or {}),
        )
        values: dict[str, Any] = {
            "id": f"{label}-{seed}",
            "task": task,
            "defense": label,
            "label": label,
            "seed": seed,
            "status": "failed" if error else "ok",
            "job": resolved,
            "scores": None if error else found,
            "best_epoch": None if error else 1,
            "history": HISTORY,
            "cost": Cost(train_seconds=20, train_forward=1000, train_backward=1000, forward=7, backward=5),
            "provenance": {"torch": "2.15.0", "host": "vm-of-mine", "date": "2026-11-21T13:56:34+00:00"},
            "error": error,
        }
        place = results / "records" / task.replace("/", "_") / (folder or f"{label}-s{seed}")
        save(Record.model_validate(values | fields), place, {"examples.parquet": examples()} | (beside or {}))
        return place

    return write
