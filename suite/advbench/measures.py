"""From judged weights to their measures: each collector journalled as it ends, and one that fails is a note.

A collector's result depends on its own fields and on nothing that the others ask for: it meets the first so many
examples that it wants, and those who want as many share the adversarial ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from advbench import find
from advbench.collect import tried
from advbench.collectors.base import Collector, Measures
from advbench.data.base import Examples
from advbench.external import External
from advbench.plan import Job
from advbench.prepare import Ready
from advbench.record import MEASURES, Measure
from advbench.seal import keep, mend
from advbench.threat import Threat

Tell = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Found:
    """What one collector found, as a record has it."""

    values: dict[str, Measure]
    notes: tuple[str, ...]
    arrays: dict[str, Tensor]
    """On the CPU, by name."""
    seconds: float


def of_job(job: Job, ready: Ready, weights: str, folder: Path, tell: Tell) -> dict[str, Found]:
    """What the job's collectors find on its judged weights, of digest `weights`; these and the journal lie in `folder`.

    By collector; empty where none is asked for. An earlier try is resumed.
    """
    if not job.collect:
        return {}
    ready.model.load_state_dict(load((folder / f"{job.evaluation.checkpoint}.safetensors").read_bytes()))
    made = [collector for collector in ready.collectors if not collector.along_only]
    return found(job, ready.model, weights, ready.subsets.test, made, folder / "journal" / "collect", tell)


def found(
    job: Job | External,
    model: nn.Module,
    weights: str,
    test: Examples,
    collectors: Sequence[Collector],
    journal: Path,
    tell: Tell,
) -> dict[str, Found]:
    """What each collector finds on the `model`, whose weights have the digest `weights`; or, journalled, has found.

    By collector, in their order. Whatever one of them raises, out of memory too, is a note in the place of its numbers
    and is tried again the next time.
    """
    keys = {collector.name: _key(job, collector, weights, test) for collector in collectors}
    known: dict[str, Found] = {}
    for name, key in keys.items():
        mend(journal / f"{name}.safetensors", lambda words: tell("note", 0, 0, words))
        if kept := _read(journal / f"{name}.safetensors", key):
            known[name] = kept
    sources = {collector.name: collector.sha256 for collector in collectors}
    todo = [collector for collector in collectors if collector.name not in known]
    threat = Threat(job.threat.norm, float(job.threat.eps))

    def say(words: str) -> None:
        tell("collect", len(known), len(collectors), words)

    with contextlib.closing(tried(model, test, threat, todo, seed=job.evaluation.seed, say=say)) as tries:
        for one in tries:
            known[one.name] = _found(one.measures, sources[one.name], one.seconds)
            if not one.failed:
                _write(journal / f"{one.name}.safetensors", keys[one.name], known[one.name])
    if todo:
        say("")
    return {name: known[name] for name in keys}


def fields(found: Mapping[str, Found], along: Mapping[str, tuple[str, ...]] | None = None) -> dict[str, Any]:
    """What a record says of it, with the notes of what was collected `along` the training behind."""
    notes = {name: one.notes for name, one in found.items()}
    for name, more in (along or {}).items():
        notes[name] = (*notes.get(name, ()), *more)
    return {"measures": {name: one.values for name, one in found.items() if one.values}, "measure_notes": notes}


def beside(found: Mapping[str, Found]) -> dict[str, bytes]:
    """The file of all arrays, as COLLECTOR/NAME; nothing where there are none."""
    arrays = {f"{name}/{array}": value for name, one in found.items() for array, value in one.arrays.items()}
    return {MEASURES: save(arrays)} if arrays else {}


def _key(job: Job | External, collector: Collector, weights: str, test: Examples) -> str:
    """What a result depends on; another build or device finds it anew."""
    fields = {name: value for name, value in find.plain(collector).items() if name != "every"}
    data = f"{job.data_sha256}/{job.data.plain()}/{job.threat.plain()}/{job.evaluation.seed}/{job.evaluation_protocol}"
    build = f"{test.device.type}/{torch.__version__}/{job.threads}"
    return hashlib.sha256(f"{weights}/{fields}/{data}/{build}".encode()).hexdigest()


def _found(measures: Measures, sha256: str | None, seconds: float) -> Found:
    values = {name: Measure(**asdict(value)) for name, value in measures.values.items()}
    # Copies, for arrays may be parts of one another, which no file of tensors holds.
    arrays = {name: a.clone(memory_format=torch.contiguous_format) for name, a in measures.arrays.items()}
    origin = (f"by a collector of the user's own, sha256 {sha256[:12]}",) if sha256 else ()
    return Found(values, (*measures.notes, *origin), arrays, round(seconds, 3))


def _write(path: Path, key: str, found: Found) -> None:
    told = {
        "values": {name: value.plain() for name, value in found.values.items()},
        "notes": found.notes,
        "seconds": found.seconds,
    }
    keep(path, save(found.arrays, metadata={"key": key, "found": json.dumps(told, allow_nan=False)}))


def _read(path: Path, key: str) -> Found | None:
    """What `_write` kept, if it is there, whole and for `key`."""
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata()
            if metadata["key"] != key:
                return None
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
        told = json.loads(metadata["found"])
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    values = {name: Measure(**value) for name, value in told["values"].items()}
    return Found(values, tuple(told["notes"]), arrays, told["seconds"])
