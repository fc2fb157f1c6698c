"""Where a training stands, and the file that holds it: enough to go on as if nothing had happened."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advbench import notice
from advbench.defense import TrainState
from advbench.parallel import Group
from advbench.plan import Job
from advbench.seal import keep, sound
from advbench.seeds import derive

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """What the training loop itself remembers; everything here is in the checkpoint."""

    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps finished in the next one."""
    loss_sum: float = 0
    reports: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])
    """By name: the sum over examples, and over how many."""
    forward: int = 0
    backward: int = 0
    seconds: float = 0
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    best: Weights = field(default_factory=dict[str, Tensor])
    best_epoch: int = -1
    best_key: tuple[float, float] = (-1, -1)
    healthy: Weights = field(default_factory=dict[str, Tensor])
    """Of the latest epoch that was not in a collapse, where training should stop at one."""
    stopped: bool = False
    along: dict[str, Any] = field(default_factory=dict[str, Any])
    """The fields of each collector that looks along the training, by its name: what the history holds of them."""
    notes: dict[str, dict[str, str]] = field(default_factory=dict[str, "dict[str, str]"])
    """What they had to say, by collector and occasion."""
    turns: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Of the steps of the next epoch, where somebody watches them."""


def _made_by(job: Job, device: torch.device) -> dict[str, str]:
    # Another device or build computes other numbers, and random states do not move between devices. Such a training
    # starts over: half an epoch of each would be a result that nobody can repeat.
    return {"train_id": job.shared_id, "device": device.type, "torch": str(torch.__version__)}


def due(group: Group, time_has_come: bool) -> bool:
    """Whether to write a checkpoint: by the clock of the first process, or because one of them was given notice."""
    told, come = group.total([notice.given(), time_has_come and group.first])
    if told:
        notice.give()
    return bool(told or come)


def save(path: Path, job: Job, device: torch.device, state: TrainState, at: Progress) -> None:
    """Write everything that the rest of the training depends on. Raises TypeError for memory that cannot be kept.

    Of processes that train together the first one writes; the others have nothing else to say. Where one of them has
    been given notice, all leave then.
    """
    due(state.group, False)
    if not state.group.first:
        notice.leave()
        return
    buffer = io.BytesIO()
    content = {
        "made_by": _made_by(job, device),
        "at": vars(at),
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average.state_dict() if state.average else None,
        "memory": state.memory,
        "noise": state.noise.generator.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    torch.save(content, buffer)
    if state.memory:
        _readable(state.memory)
    keep(path, buffer.getvalue())
    notice.leave()


def _readable(memory: dict[str, Any]) -> None:
    """Find out now and not after a crash, each time, for it may have changed: resuming never unpickles objects."""
    buffer = io.BytesIO()
    torch.save(memory, buffer)
    buffer.seek(0)
    try:
        torch.load(buffer, map_location="cpu", weights_only=True)
    except Exception as error:
        raise TypeError(
            "state.memory should hold tensors, numbers, strings, lists and dicts only, or a checkpoint cannot be read "
            f"back: {str(error).splitlines()[0]}"
        ) from None


def resume(path: Path, job: Job, device: torch.device, state: TrainState, at: Progress) -> bool:
    """Continue from `path` if it holds this very training; otherwise leave everything as it is.

    `at.along` says what its history has to hold beside. Of a training that collected more, the rest is left out; of
    one that collected less, nothing can be had but the weights, and it is not this one.

    The number of processes may be another one: they all go on from what the first one reads. It alone decides whether
    they do; one that cannot raises, or it would train something else than the others.
    """
    content = state.group.told(_read(path, job, device, at.along) if state.group.first else None)
    if content is None:
        return False
    # On the CPU: optimizers keep some of their numbers there, and loading moves the rest by itself.
    saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    memory = {}
    if saved["memory"]:
        memory = torch.load(io.BytesIO(content), map_location=device, weights_only=True)["memory"]
    asked = at.along
    vars(at).update(saved["at"])
    _keep_only(asked, at)
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    if state.average:
        state.average.load_state_dict(saved["average"])
    state.memory = memory
    state.noise.generator.set_state(saved["noise"])
    if not state.group.first:
        # Dropout should not fall on the same places in every process's part.
        torch.manual_seed(derive(job.seed, "dropout", at.epoch, state.group.rank, at.step))
        return True
    torch.set_rng_state(saved["torch"])
    if saved["cuda"] is not None:
        torch.cuda.set_rng_state(saved["cuda"], device)
    return True


def _keep_only(asked: dict[str, Any], at: Progress) -> None:
    at.along, at.notes = asked, {name: said for name, said in at.notes.items() if name in asked}
    for line in at.history:
        found = {name: values for name, values in line.pop("measures", {}).items() if name in asked}
        seconds = line.pop("collect_seconds", 0)
        if found:
            line |= {"measures": found, "collect_seconds": seconds}


def _read(path: Path, job: Job, device: torch.device, along: dict[str, Any]) -> bytes | None:
    """The file's bytes, if it holds this very training, and what was to be collected `along` it."""
    try:
        content = path.read_bytes()
        if sound(path.name, content) is False:
            return None
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        kept = saved["at"].get("along", {})
        whole = "memory" in saved and all(kept.get(name) == fields for name, fields in along.items())
        return content if whole and saved["made_by"] == _made_by(job, device) else None
    except Exception:  # absent, or damaged: that can fail anywhere in the unpickler; training then starts over
        return None
