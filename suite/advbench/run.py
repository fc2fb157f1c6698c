"""The conveyor, one job at a time: data, train, evaluate, collect, flags, record."""

from __future__ import annotations

import hashlib
import traceback
from dataclasses import asdict
from pathlib import Path

import torch

from advbench import flags, leave, measures, notice
from advbench.conduct import conduct
from advbench.energy import Meter
from advbench.experiment import Experiment
from advbench.files import FULL, Unwritable
from advbench.launch import Share, here
from advbench.plan import Item, Job, record_folder, run_folder
from advbench.prepare import Ready, prepare
from advbench.record import MEASURES, Cost, Epoch, Flag, Record, load, save, whole
from advbench.scores import Verdicts
from advbench.seal import mend
from advbench.spec import BadInput
from advbench.train import Diverged, Tell, Trained, train
from advbench.verdicts import verdicts


def run_job(
    item: Item, results: Path, root: Path, device: torch.device, tell: Tell, share: Share | None = None
) -> Record:
    """Train, evaluate, collect and record one job, resuming where an earlier try stopped. Raises whatever goes wrong.

    `share`: how several processes share training and evaluation; by default they are started here, on the first devices
    there are.
    """
    job = item.job
    assert isinstance(job, Job)
    folder = run_folder(results, job.path)
    ready = prepare(item, root, device)
    subsets, model, defense = ready.subsets, ready.model, ready.defense
    if earlier := _judged(job, results):
        return _observed(earlier, job, ready, results, tell)
    began = dict(ready.began)
    fresh = not (folder / "journal").exists() and not (folder / "checkpoint.pt").exists()
    meter = Meter(device)
    mend(folder / "checkpoint.pt", lambda words: tell("note", 0, 0, words))
    with notice.awaited():
        if (processes := defense.workers()) > 1:
            places = ["cpu" if device.type == "cpu" else f"cuda:{n}" for n in range(processes)]
            trained = (share or here(results, root, places))(item, ready, tell)
            began["processes"] = processes
        else:
            trained = train(job, subsets, defense, model, folder / "checkpoint.pt", tell, collectors=ready.collectors)
    found, digests = verdicts(job, ready, trained, folder, tell)
    judged = found[job.evaluation.checkpoint]
    seen = measures.of_job(job, ready, digests[job.evaluation.checkpoint], folder, tell)
    largest = int(subsets.validation.labels.bincount().max()) / len(subsets.validation)
    raised = flags.of_training(
        trained.history, eps=float(job.threat.eps), adversarial=defense.adversarial, largest=largest
    )
    record = _record(job, "ok", trained.history).model_copy(
        update={
            "scores": judged.scores,
            "checkpoints": {name: v.scores for name, v in found.items()},
            "best_epoch": trained.best_epoch,
            # What an earlier try took is known to nobody, and what others took not to this process.
            "cost": _cost(trained, found, seen, device, meter.joules() if fresh and processes == 1 else None),
            **measures.fields(seen, trained.notes),
            "flags": tuple(raised + flags.of_evaluation(judged)),
            "provenance": leave.provenance(device, digests, subsets.test.stored.dtype)
            | began
            | {"training": asdict(trained.engine), "evaluation": judged.passes},
        }
    )
    beside = {"examples.parquet": leave.examples(judged), "adversarial.safetensors": leave.adversarial(judged)}
    beside |= measures.beside(seen)
    return save(record, record_folder(results, job.path), beside)


def _kept(job: Job, results: Path) -> Record | None:
    """The whole record of this very job but for what it collects."""
    folder = record_folder(results, job.path)
    try:
        record = load(folder / "record.json")
        earlier = Job.model_validate(record.job)
    except (BadInput, ValueError):  # none, or one of an earlier version
        return None
    same = earlier.judged_id == job.judged_id and record.status == "ok"
    return record if same and whole(record, folder) else None


def _judged(job: Job, results: Path) -> Record | None:
    """That record, if the weights that it judged are still here and nothing is to be collected along the training."""
    record = _kept(job, results)
    if record is None:
        return None
    try:
        weights = (run_folder(results, job.path) / f"{job.evaluation.checkpoint}.safetensors").read_bytes()
    except OSError:
        return None
    known = record.provenance.get("weights_sha256", {}).get(job.evaluation.checkpoint)
    # What was collected along a training is a part of its history.
    asked = (job.collect or {}, record.job.get("collect") or {})
    along = any(fields.get("every") for one in asked for fields in one.values())
    return record if known == hashlib.sha256(weights).hexdigest() and not along else None


def _observed(record: Record, job: Job, ready: Ready, results: Path, tell: Tell) -> Record:
    """The `record` with what the job's collectors find, in the place of what earlier ones found."""
    weights = record.provenance["weights_sha256"][job.evaluation.checkpoint]
    folder = record_folder(results, job.path)
    seen = measures.of_job(job, ready, weights, run_folder(results, job.path), tell)
    cost = record.cost.model_copy(update={"collect_seconds": _seconds(seen)})
    update = {"id": job.id, "job": job.plain(), "cost": cost, **measures.fields(seen)}
    beside = {name: (folder / name).read_bytes() for name in record.files if name != MEASURES}
    return save(record.model_copy(update=update), folder, beside | measures.beside(seen))


def _seconds(seen: dict[str, measures.Found]) -> float:
    return round(sum(one.seconds for one in seen.values()), 3)


def failed(job: Job | Experiment, results: Path, error: str, history: tuple[Epoch, ...] = ()) -> Record:
    """Write down that a job failed and why; the next run tries it again.

    A whole record that lacks only what is now to be collected stays, and what failed is told by the record returned.
    """
    dead = error.startswith("Diverged:")
    raised = (Flag(name="dead", message=error.strip().splitlines()[-1]),) if dead else ()
    record = _record(job, "failed", history).model_copy(update={"error": error, "flags": raised})
    if isinstance(job, Job) and _kept(job, results):
        return record
    return save(record, record_folder(results, job.path))


def attempt(
    item: Item, results: Path, root: Path, device: torch.device, tell: Tell, share: Share | None = None
) -> Record:
    """`run_job`, or `conduct` for a study, with whatever it raises turned into what `failed` returns.

    But Unwritable, for a disk that is full.
    """
    assert item.job is not None
    try:
        if isinstance(item.job, Experiment):
            return conduct(item, results, root, device, tell)
        return run_job(item, results, root, device, tell, share)
    except Unwritable:
        raise  # the fault of no job: when there is room again, it goes on
    except Diverged as error:
        return failed(item.job, results, f"Diverged: {error}", error.history)
    except Exception as error:  # a defense file may raise anything; the other jobs go on
        if isinstance(error, OSError) and error.errno in FULL:  # what a defense prints goes to the disk too
            raise Unwritable(run_folder(results, item.path), error) from error
        return failed(item.job, results, traceback.format_exc())


def _record(job: Job | Experiment, status: str, history: tuple[Epoch, ...]) -> Record:
    return Record.model_validate(
        {
            "schema": 1,
            "id": job.id,
            "task": job.task,
            "defense": job.subject,
            "label": job.label,
            "seed": job.seed,
            "status": status,
            "job": job.plain(),
            "history": history,
        }
    )


def _cost(
    trained: Trained,
    found: dict[str, Verdicts],
    seen: dict[str, measures.Found],
    device: torch.device,
    joules: float | None,
) -> Cost:
    return Cost(
        train_seconds=round(sum(e.seconds for e in trained.history), 3),
        eval_seconds=round(sum(v.ledger.seconds for v in found.values()), 3),
        collect_seconds=round(_seconds(seen) + sum(e.collect_seconds or 0 for e in trained.history), 3),
        train_forward=sum(e.forward for e in trained.history),
        train_backward=sum(e.backward for e in trained.history),
        forward=sum(int(v.ledger.forward.sum()) for v in found.values()),
        backward=sum(int(v.ledger.backward.sum()) for v in found.values()),
        peak_memory_bytes=leave.memory(device),
        joules=joules,
    )
