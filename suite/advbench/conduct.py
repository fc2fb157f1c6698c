"""One seed of a study, from its plan to its record."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save as tensors

from advbench import find, leave, theory
from advbench.data.subsets import Subsets, choose
from advbench.experiment import Experiment
from advbench.findings import Findings
from advbench.plan import Item, record_folder
from advbench.prepare import set_up
from advbench.record import MEASURES, Cost, Measure, Record, save
from advbench.seeds import derive, own_streams
from advbench.study import Setting, declared
from advbench.train import Tell


def conduct(item: Item, results: Path, root: Path, device: torch.device, tell: Tell) -> Record:
    """Run one seed of a study and record it. Raises whatever goes wrong.

    A study takes seconds to minutes, so nothing is kept on the way: what was killed is begun again.
    """
    job = item.job
    assert isinstance(job, Experiment)
    set_up(job.threads, device, deterministic=bool(job.deterministic))
    study = theory.of(job, item.base)
    setting = Setting(
        job.seed, device, *_data(job, root, device), lambda done, total, words: tell("study", done, total, words)
    )
    begun = time.perf_counter()
    # Networks draw their first weights from the global stream.
    with own_streams(derive(job.seed, "study", study.name), device):
        found = study.run(setting)
    seconds = time.perf_counter() - begun
    claims = declared(study, found)
    notes = found.notes
    if job.instead and job.data:
        notes = (f"{job.instead} is not here: the embedded {job.data.name} in its place", *notes)
    arrays = {f"{study.name}/{name}": value.cpu().contiguous().clone() for name, value in found.arrays.items()}
    record = Record.model_validate(
        {
            "schema": 1,
            "id": job.id,
            "task": job.task,
            "defense": job.subject,
            "label": job.label,
            "seed": job.seed,
            "status": "ok",
            "job": job.plain(),
            "findings": Findings(about=study.about, paper=study.paper, claims=claims, plot=study.plot),
            "measures": {study.name: {name: Measure(**asdict(value)) for name, value in found.values.items()}},
            "measure_notes": {study.name: notes} if notes else {},
            "cost": Cost(train_seconds=round(seconds, 3), peak_memory_bytes=leave.memory(device)),
            "provenance": leave.provenance(device, {}, torch.float32),
        }
    )
    return save(record, record_folder(results, job.path), {MEASURES: tensors(arrays)} if arrays else {})


def _data(job: Experiment, root: Path, device: torch.device) -> tuple[Subsets | None, int]:
    """The study's data and number of classes. Raises RuntimeError when they changed since the plan."""
    if job.data is None:
        return None, 0
    dataset = find.read_data(job.data, root)
    if dataset.sha256 != job.data_sha256:
        raise RuntimeError(f"the data '{job.data.name}' changed since the plan was made; run again")
    return choose(dataset, job.data, device), dataset.classes
