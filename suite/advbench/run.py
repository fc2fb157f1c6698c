"""The conveyor, one job at a time: data, train, evaluate, flags, record."""

from __future__ import annotations

import datetime
import io
import platform
import resource
import subprocess
import sys
import traceback
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save as safetensors
from torch import Tensor

import advbench
from advbench import flags, machine
from advbench.launch import Share, here
from advbench.plan import Item, Job, record_folder, run_folder
from advbench.prepare import prepare
from advbench.record import Cost, Epoch, Flag, Record, save
from advbench.scores import Verdicts
from advbench.train import Diverged, Tell, Trained, train
from advbench.verdicts import verdicts

KEPT = 64
"""Broken examples that a record keeps as images, for audits and for eyes."""


def run_job(
    item: Item, results: Path, root: Path, device: torch.device, tell: Tell, share: Share | None = None
) -> Record:
    """Train, evaluate and record one job, resuming where an earlier try stopped. Raises whatever goes wrong.

    `share`: how several processes share training and evaluation; by default they are started here, on the first devices
    there are.
    """
    job = item.job
    assert job is not None
    folder = run_folder(results, job.path)
    ready = prepare(item, root, device)
    subsets, model, defense = ready.subsets, ready.model, ready.defense
    began = dict(ready.began)
    if (processes := defense.workers()) > 1:
        share = share or here(results, root, ["cpu" if device.type == "cpu" else f"cuda:{n}" for n in range(processes)])
        trained = share(item, ready, tell)
        began["processes"] = processes
    else:
        trained = train(job, subsets, defense, model, folder / "checkpoint.pt", tell)
    found, digests = verdicts(job, ready, trained, folder, tell)
    judged = found[job.evaluation.checkpoint]
    largest = int(subsets.validation.labels.bincount().max()) / len(subsets.validation)
    raised = flags.of_training(
        trained.history, eps=float(job.threat.eps), adversarial=defense.adversarial, largest=largest
    )
    record = _record(job, "ok", trained.history).model_copy(
        update={
            "scores": judged.scores,
            "checkpoints": {name: v.scores for name, v in found.items()},
            "best_epoch": trained.best_epoch,
            "cost": _cost(trained, found, device),
            "flags": tuple(raised + flags.of_evaluation(judged)),
            "provenance": _provenance(device, digests, subsets.test.stored.dtype)
            | began
            | {"training": asdict(trained.engine), "evaluation": judged.passes},
        }
    )
    beside = {"examples.parquet": _examples(judged), "adversarial.safetensors": _adversarial(judged)}
    return save(record, record_folder(results, job.path), beside)


def failed(job: Job, results: Path, error: str, history: tuple[Epoch, ...] = ()) -> Record:
    """Write down that a job failed and why; the next run tries it again."""
    dead = error.startswith("Diverged:")
    raised = (Flag(name="dead", message=error.strip().splitlines()[-1]),) if dead else ()
    record = _record(job, "failed", history).model_copy(update={"error": error, "flags": raised})
    return save(record, record_folder(results, job.path))


def attempt(
    item: Item, results: Path, root: Path, device: torch.device, tell: Tell, share: Share | None = None
) -> Record:
    """`run_job`, with whatever it raises turned into a FAILED record."""
    assert item.job is not None
    try:
        return run_job(item, results, root, device, tell, share)
    except Diverged as error:
        return failed(item.job, results, f"Diverged: {error}", error.history)
    except Exception:  # a defense file may raise anything; the other jobs go on
        return failed(item.job, results, traceback.format_exc())


def _record(job: Job, status: str, history: tuple[Epoch, ...]) -> Record:
    return Record.model_validate(
        {
            "schema": 1,
            "id": job.id,
            "task": job.task,
            "defense": job.defense["name"],
            "label": job.label,
            "seed": job.seed,
            "status": status,
            "job": job.plain(),
            "history": history,
        }
    )


def _cost(trained: Trained, found: dict[str, Verdicts], device: torch.device) -> Cost:
    # Of this process, or of the largest one that it started. On CUDA of this one alone: where others do a shared job
    # for it, that is a lower bound, the little that this one keeps there itself.
    memory = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    memory *= 1 if sys.platform == "darwin" else 1024  # kilobytes everywhere but on macOS
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device)
    return Cost(
        train_seconds=round(sum(e.seconds for e in trained.history), 3),
        eval_seconds=round(sum(v.ledger.seconds for v in found.values()), 3),
        train_forward=sum(e.forward for e in trained.history),
        train_backward=sum(e.backward for e in trained.history),
        forward=sum(int(v.ledger.forward.sum()) for v in found.values()),
        backward=sum(int(v.ledger.backward.sum()) for v in found.values()),
        peak_memory_bytes=memory,
    )


def _provenance(device: torch.device, digests: dict[str, str], stored: torch.dtype) -> dict[str, Any]:
    return {
        "advbench": advbench.__version__,
        "torch": str(torch.__version__),
        **{name: version(name) for name in ("torchvision", "pyautoattack", "numpy", "scikit-learn")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else machine.cpu(),
        "threads": torch.get_num_threads(),
        "dtype": "float32",
        "stored": str(stored).removeprefix("torch."),
        "deterministic": device.type == "cpu",
        "weights_sha256": digests,
        "git": _git(),
        "host": platform.node(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


@cache
def _git() -> str | None:
    """The commit of the checkout that runs, with a + when it has changes; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        # An installed package may lie inside somebody else's repository, which does not track it.
        for command in (["ls-files", "--error-unmatch", "__init__.py"], ["describe", "--always", "--dirty=+"]):
            told = subprocess.run([*git, *command], capture_output=True, text=True, timeout=10, check=True)
        return told.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _examples(judged: Verdicts) -> bytes:
    ledger = judged.ledger
    table = pa.table(
        {
            "index": ledger.index.numpy(),
            "label": ledger.labels.numpy(),
            "predicted": ledger.predicted.numpy(),
            "margin": ledger.margin.numpy(),
            "distance": pa.array(ledger.distance.numpy(), mask=ledger.distance.isinf().numpy()),
            "broken_by": pa.array(judged.broken_by, pa.string()),
            "forward": ledger.forward.numpy(),
            "backward": ledger.backward.numpy(),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)  # pyright: ignore[reportUnknownMemberType]
    return buffer.getvalue()


def _adversarial(judged: Verdicts) -> bytes:
    ledger = judged.ledger
    rows = (ledger.broken_by >= 0).nonzero().squeeze(1)[:KEPT]
    kept: dict[str, Tensor] = {"index": ledger.index[rows], "images": ledger.adversarial[rows].contiguous()}
    return safetensors(kept)
