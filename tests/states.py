"""Whole results folders made by hand, one for each state that a board can be in: `lay(name, folder)`.

The records are as a run leaves them, with a history, a curve, a table of examples and images that broke them; what
they say is drawn from a fixed seed and consistent in itself, and no model stands behind it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save as safetensors

from advbench.record import Accuracy, Cost, Epoch, Flag, Measure, Record, Scores

EPS = "3/20"
CURVE = ("1/20", "1/10", "3/20", "1/5")
RUNGS = ("fgsm", "pgd", "autoattack-fast")
EXAMPLES = 120
SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror="alert(2)">'
ABOVE = "../../x"
LONG = "long" * 2_500
ARABIC = "דפנס الدفاع \N{RIGHT-TO-LEFT OVERRIDE}evil\N{POP DIRECTIONAL FORMATTING}"
CLOSING = "</script><!-- ]]> {{ 7*7 }} ${7*7} \\u003c %3Cb%3E javascript:alert(3)"
HUGE = 9e99
HOSTILE = (SCRIPT, IMAGE, ABOVE, LONG, ARABIC, CLOSING)
COLLAPSED = Flag(
    name="catastrophic-overfitting",
    message="PGD-10 accuracy fell from 51.0% to 0.3% at epoch 5 while FGSM accuracy rose to 97.2%",
    evidence={"epoch": 5, "before": 0.51, "after": 0.003},
)
STOPPED = Flag(
    name="stopped",
    message="PGD fell less than FGSM: gradients lead nowhere, so the ladder was not climbed to its end",
    evidence={"fgsm": 0.41, "pgd": 0.55},
)


def accuracy(right: np.ndarray, protocol: str | None = None) -> Accuracy:
    """A share with Wilson's 95 % interval."""
    n, p, z = len(right), float(right.mean()), 1.96
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (max(0.0, min(1.0, (centre + sign * half) / (1 + z * z / n))) for sign in (-1, 1))
    return Accuracy(accuracy=p, low=low, high=high, n=n, protocol=protocol)


def job(task: str, label: str, seed: int, **changes: Any) -> dict[str, Any]:
    """A resolved job; a table among `changes` replaces fields of its own."""
    resolved: dict[str, Any] = {
        "task": task,
        "title": f"{task}: digits under Linf {EPS}",
        "label": label,
        "seed": seed,
        "data": {"name": "digits"},
        "data_sha256": "9a" * 32,
        "model": {"name": "digits-cnn"},
        "threat": {"norm": "Linf", "eps": EPS},
        "training": {"epochs": 8, "batch": 128, "lr": 0.1, "optimizer": "sgd"},
        "evaluation": {"attacks": [{"name": name} for name in RUNGS], "checkpoint": "best", "curve": list(CURVE)},
        "defense": {"name": label, "sha256": "14" * 32, "steps": 10, "step_size": 0.25},
        "deviations": {},
        "threads": 1,
        "protocol": 2,
        "evaluation_protocol": 3,
    }
    for key, value in changes.items():
        resolved[key] = {**resolved[key], **value} if isinstance(value, dict) else value
    return resolved


def history(epochs: int, collapses: bool, robust: float, rng: np.random.Generator, every: int = 0) -> tuple[Epoch, ...]:
    """Epochs that rise to about `robust`, and fall to nought behind the fifth where training `collapses`.

    `every` so many epochs a collector looks in passing.
    """
    lines = []
    for epoch in range(1, epochs + 1):
        pgd = 0.003 if collapses and epoch > 5 else robust * (1 - math.exp(-epoch / 2)) + 0.01 * rng.random()
        fgsm = 0.972 if collapses and epoch > 5 else min(1, pgd + 0.06)
        common: dict[str, Any] = {"top_class": 0.12, "eps": 0.15, "lr": 0.1, "seconds": 0.4}
        passes: dict[str, Any] = {"forward": 14_234, "backward": 14_234}
        if every and (epoch % every == 0 or epoch == epochs):
            # What is not finite is kept as nothing.
            common["measures"] = {"param-hessian": {"clean_top1": robust * epoch}, "fosc": {"fosc_final": None}}
        lines.append(
            Epoch(epoch=epoch, loss=2.3 / epoch, clean=0.9 - 0.4 / epoch, fgsm=fgsm, pgd=pgd, **common, **passes)
        )
    return tuple(lines)


def measured(rng: np.random.Generator) -> tuple[dict[str, dict[str, Measure]], dict[str, np.ndarray]]:
    """What collectors found, and their arrays: spectra and a loss surface."""
    at = np.linspace(-1, 1, 9)
    values, weights = np.sort(rng.normal(0, 3, 40)), np.full(40, 1 / 40)
    arrays = {
        "input-hessian/clean_values": np.abs(rng.normal(0, 2, (16, 5))).astype(np.float32),
        "param-hessian/clean_values": values[::-1][:5].copy(),
        "param-hessian/clean_ritz": values,
        "param-hessian/clean_weights": weights,
        "param-hessian/clean_density_at": np.linspace(-10, 10, 101),
        "param-hessian/clean_density": np.exp(-(np.linspace(-10, 10, 101) ** 2) / 18),
        "sharpness/curve_at": at,
        "sharpness/clean_curve": at**2,
        "sharpness/surface_at": at,
        "sharpness/clean_surface": at[:, None] ** 2 + 2 * at[None] ** 2,
        "sharpness/adversarial_surface": 1 + at[:, None] ** 2 + 3 * at[None] ** 2,
    }
    top = Measure(value=float(values[-1]), unit="nats", meaning="largest Hessian eigenvalue of the clean loss")
    none = Measure(value=None, unit="1", meaning="share of ReLU gates that the attack leaves alone")
    return {"param-hessian": {"clean_top1": top}, "input-hessian": {"gates": none}}, arrays


def write(
    results: Path,
    label: str = "pgd-at",
    seed: int = 0,
    robust: float = 0.5,
    *,
    task: str = "digits-linf",
    where: str | None = None,
    flags: tuple[Flag, ...] = (),
    error: str | None = None,
    changes: dict[str, Any] | None = None,
    collected: bool = False,
    examples: int = EXAMPLES,
    epochs: int = 8,
    **fields: Any,
) -> Record:
    """Write one record into `records/TASK/LABEL-sSEED`, or where the folder should be called otherwise, `where`."""
    rng = np.random.default_rng([seed, *label.encode()[:100], *task.encode()[:100]])
    hard, truth = rng.random(examples), rng.integers(0, 10, examples)
    right, stands = hard < 0.92, hard < min(robust, 0.92)
    stopped = STOPPED in flags
    best = Scores(
        clean=accuracy(right),
        robust=None if stopped else accuracy(stands, "autoattack-fast"),
        attacks={name: float((hard < robust + 0.06 - 0.02 * i).mean()) for i, name in enumerate(RUNGS)},
        alone={name: float((hard < robust + 0.08 - 0.02 * i).mean()) for i, name in enumerate(RUNGS)},
        alone_n=dict.fromkeys(RUNGS, 64),
        curve={eps: float((hard < robust + 0.15 - 0.07 * i).mean()) for i, eps in enumerate(CURVE)},
        distance=0.2,
    )
    fell = np.flatnonzero(right & ~stands)
    broken = np.full(examples, None, object)
    broken[~right] = "clean"
    broken[fell] = np.resize(RUNGS, len(fell))
    columns = {
        "index": np.arange(examples),
        "label": truth,
        "predicted": np.where(right, truth, (truth + 1) % 10),
        "margin": rng.normal(2, 2, examples).astype(np.float32),
        "distance": pa.array(rng.uniform(0, 0.3, examples), mask=~right),
        "broken_by": pa.array(broken.tolist(), pa.string()),
        "forward": np.full(examples, 3_444),
        "backward": np.full(examples, 2_022),
    }
    table = io.BytesIO()
    pq.write_table(pa.table(columns), table)
    kept = fell[:8]
    measures, arrays = measured(rng) if collected else ({}, {})
    beside = {
        "examples.parquet": table.getvalue(),
        "adversarial.safetensors": safetensors(
            {"index": kept, "images": rng.random((len(kept), 1, 8, 8), dtype=np.float32)}
        ),
        **({"measures.safetensors": safetensors(arrays)} if collected else {}),
    }
    values: dict[str, Any] = {
        "id": f"{label}-{seed}"[:40],
        "task": task,
        "defense": label,
        "label": label,
        "seed": seed,
        "status": "failed" if error else "ok",
        "job": job(task, label, seed, **(changes or {})),
        "scores": None if error else best,
        "checkpoints": {} if error else {"best": best},
        "best_epoch": None if error else epochs,
        "history": history(epochs, COLLAPSED in flags, robust, rng, every=3 if collected else 0),
        "cost": Cost(
            train_seconds=10 + seed + 20 * robust,
            eval_seconds=60,
            train_forward=114_000,
            train_backward=int(114_000 * (1 + robust)),
            forward=980_545,
            backward=580_439,
            peak_memory_bytes=10**9,
        ),
        "flags": flags,
        "measures": measures,
        "provenance": {"torch": "2.15.0", "device": "cpu: some", "threads": 1, "weights_sha256": {"best": "d4" * 32}},
        "error": error,
    }
    return put(
        Record.model_validate(values | fields), results / "records" / (where or f"{task}/{label}-s{seed}"), beside
    )


def put(record: Record, folder: Path, beside: dict[str, bytes]) -> Record:
    """As `advbench.record.save`, without waiting for the disk: there are hundreds of them."""
    beside = beside if record.scores else {}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in beside.items()}
    record = record.model_copy(update={"files": digests})
    folder.mkdir(parents=True)
    for name, content in {**beside, "record.json": json.dumps(record.plain()).encode()}.items():
        (folder / name).write_bytes(content)
    return record


def _one(results: Path) -> None:
    write(results)


def _tasks(results: Path) -> None:
    """Two data sets, norms, models and budgets; extra data; declared deviations; three seeds; measures."""
    for seed in range(3):
        write(results, "pgd-at", seed, 0.62 - 0.01 * seed, collected=True)
        write(results, "fast-at", seed, 0.5 + 0.01 * seed, collected=True, flags=(COLLAPSED,) if seed == 2 else ())
        write(results, "standard", seed, 0.05)
    write(results, "mart", 0, 0.55, changes={"deviations": {"lr": 0.02}, "training": {"lr": 0.02}})
    other = {"data": {"name": "mnist"}, "threat": {"norm": "L2", "eps": "2"}, "training": {"epochs": 30}}
    for seed in range(2):
        write(results, "pgd-at", seed, 0.7, task="mnist-l2", changes=other | {"model": {"name": "mnist-cnn"}})
        model = {"name": "mnist-cnn", "pretrained": "w.safetensors", "extra_data": "synthetic 1M"}
        write(results, "trades", seed, 0.75, task="mnist-l2", changes=other | {"model": model})


def _failed(results: Path) -> None:
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nRuntimeError: the training loss is nan'
    write(results, "pgd-at", 0, error=trace)
    write(results, "pgd-at", 1, error=trace)


def _collapsed(results: Path) -> None:
    write(results, "fast-at", 0, 0.5)
    write(results, "fast-at", 1, 0.02, flags=(COLLAPSED,))


def _stopped(results: Path) -> None:
    write(results, "masked", 0, 0.6, flags=(STOPPED,))


def _hostile(results: Path) -> None:
    """Each hostile text as label, title, flag, evidence, error, hyper-parameter, attack, measure and provenance."""
    for number, text in enumerate(HOSTILE):
        flag = Flag(name=text, message=text, evidence={text: text})
        odd = {"title": text, "defense": {"name": text, text: text}, "deviations": {text: text}}
        found = {text: {text: Measure(value=1.0, unit=text, meaning=text)}}
        more: dict[str, Any] = {"measures": found, "measure_notes": {text: (text,)}, "provenance": {text: text}}
        write(results, text, 0, 0.4, where=f"t/{number}", task="t", flags=(flag,), changes=odd, **more)
        write(results, text, 1, where=f"t/{number}-failed", task="t", error=f"ValueError: {text}", changes=odd)
        write(results, "pgd-at", 0, 0.5, where=f"u{number}/0", task=text, changes={"model": {"name": text}})
    large = Epoch.model_validate(history(1, False, 0.5, np.random.default_rng())[0].plain() | {"loss": HUGE})
    found = {"fosc": {"mean": Measure(value=HUGE, unit="1", meaning="huge")}}
    costs = Cost(train_seconds=1e17, eval_seconds=1e17, train_forward=10**17, train_backward=10**17, joules=1e17)
    more = {"history": (large, large), "measures": found, "cost": costs, "provenance": {"n": 2**63 - 1, "x": -HUGE}}
    for label in ("huge", "other"):
        write(results, label, 2**63 - 1, where=f"huge/{label}", task="huge", **more)


def _many(results: Path) -> None:
    """A table of 500 rows."""
    for number in range(500):
        write(results, f"defense-{number:03d}", 0, 0.2 + 0.0012 * number)


STATES: dict[str, Callable[[Path], None]] = {
    "none": lambda results: None,
    "one": _one,
    "tasks": _tasks,
    "failed": _failed,
    "collapsed": _collapsed,
    "stopped": _stopped,
    "hostile": _hostile,
    "many": _many,
}


def lay(name: str, results: Path) -> Path:
    """Write the records of a state into `results` and return that folder."""
    results.mkdir(parents=True, exist_ok=True)
    STATES[name](results)
    return results
