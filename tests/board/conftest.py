from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from advbench.record import Accuracy, Cost, Epoch, Flag, Record, Scores, save

Make = Callable[..., Record]
COLLAPSED = Flag(name="catastrophic-overfitting", message="PGD fell to 3 % at epoch 17.", evidence={"epoch": 17})


def _accuracy(value: float) -> Accuracy:
    return Accuracy(accuracy=value, low=max(0, value - 0.05), high=min(1, value + 0.05), n=360, protocol="autoattack")


@pytest.fixture
def make() -> Make:
    """A record of task `t`, as a run leaves it; `job` replaces tables of the job field by field."""

    def record(
        label: str = "pgd-at",
        seed: int = 0,
        robust: float | None = 0.5,
        *,
        clean: float = 0.9,
        task: str = "t",
        flags: tuple[Flag, ...] = (),
        error: str | None = None,
        job: dict[str, Any] | None = None,
        **scores: Any,
    ) -> Record:
        resolved: dict[str, Any] = {
            "title": "Digits under Linf 0.15",
            "data": {"name": "digits"},
            "data_sha256": "9f",
            "model": {"name": "digits-cnn"},
            "threat": {"norm": "Linf", "eps": "3/20"},
            "training": {"epochs": 30, "lr": 0.1},
            "evaluation": {"attacks": [{"name": "fgsm"}, {"name": "pgd"}, {"name": "autoattack"}]},
            "defense": {"name": label, "steps": 10},
            "deviations": {},
            "threads": 1,
            "protocol": 1,
        }
        for key, value in (job or {}).items():
            resolved[key] = {**resolved[key], **value} if isinstance(value, dict) else value
        found = None
        if error is None:
            scores.setdefault("attacks", {"autoattack": robust, "fgsm": 0.8, "pgd": 0.6} if robust is not None else {})
            found = Scores(clean=_accuracy(clean), robust=None if robust is None else _accuracy(robust), **scores)
        return Record(
            id=f"{task}-{label}-{seed}",
            task=task,
            defense=label,
            label=label,
            seed=seed,
            status="ok" if error is None else "failed",
            job=resolved,
            scores=found,
            checkpoints={"best": found} if found else {},
            best_epoch=3 if found else None,
            cost=Cost(train_seconds=10 + seed, eval_seconds=5, train_forward=3_000_000, train_backward=2_100_000),
            flags=flags,
            provenance={"torch": "2.15.0"},
            error=error,
        )

    return record


@pytest.fixture
def trained(make: Make) -> Make:
    """A record whose epochs have these PGD accuracies, and cost `forward` + `backward` passes and `seconds` each."""

    def record(
        label: str,
        pgd: list[float],
        seed: int = 0,
        *,
        clean: list[float] | None = None,
        forward: int = 10,
        backward: int = 10,
        seconds: float = 1.0,
        **fields: Any,
    ) -> Record:
        common: dict[str, Any] = {"loss": 1.0, "fgsm": 0.5, "top_class": 0.1, "eps": 0.1, "lr": 0.1}
        cost: dict[str, Any] = {"forward": forward, "backward": backward, "seconds": seconds}
        cleans = clean or [0.9] * len(pgd)
        lines = [
            Epoch(epoch=i + 1, clean=c, pgd=p, **common, **cost)
            for i, (p, c) in enumerate(zip(pgd, cleans, strict=True))
        ]
        return make(label, seed, **fields).model_copy(update={"history": tuple(lines)})

    return record


@pytest.fixture
def lay() -> Callable[..., Path]:
    """Writes records as a run does and returns the results folder that holds them."""

    def write(folder: Path, *records: Record) -> Path:
        for record in records:
            save(record, folder / "records" / record.task / f"{record.label}-s{record.seed}".replace("/", "_"))
        return folder

    return write


@pytest.fixture
def records(make: Make) -> list[Record]:
    """Two tasks: a good seed and a flagged one, a failed job, a declared deviation."""
    curve = {"1/20": 0.7, "1/10": 0.6}
    return [
        make(seed=0, robust=0.6, curve=curve),
        make(seed=1, robust=0.03, curve=curve, flags=(COLLAPSED,)),
        make("mart", 0, error="Traceback\nRuntimeError: loss is not finite"),
        make("free-at", 0, 0.4, job={"training": {"epochs": 8}, "deviations": {"epochs": 8}}),
        make(task="u", robust=0.25),
    ]
