"""A model from anywhere: from the word on the command line to a network that is known to answer as it should.

FILE.py:NAME is what a Python file makes, its weights filled in from a file where one is given; a folder is a job of
`advbench run` (results/records/T/label-sN or results/runs/T/label-sN); robustbench:NAME is an entry of that zoo; any
other name is a model of ours, of torchvision or of timm, as in a task file, with a file of weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advbench import factory, find, zoo
from advbench.data.base import Missing
from advbench.models.base import Model
from advbench.models.library import Library
from advbench.plan import record_folder, run_folder
from advbench.record import Record
from advbench.record import load as load_record
from advbench.seeds import own_streams
from advbench.spec import BadInput
from advbench.start import fill, settle, start
from advbench.task import Task
from advbench.trial import Unfit, answer
from advbench.weights import Read, digest, read, renamed

CLOSE = 1e-3
"""How far an image's logits may move with the rest of its batch, as a share of the largest."""


@dataclass(frozen=True)
class Asked:
    """What a person said of the model."""

    word: str
    weights: Path | None = None
    weights_sha256: str | None = None
    checkpoint: str | None = None
    """"best" or "last", of a run folder."""


@dataclass(frozen=True)
class Outside:
    """A network in eval mode on its device, and what its record says of it."""

    network: nn.Module
    label: str
    """Where none is given: letters that folders take."""
    about: dict[str, Any]
    versions: dict[str, str]
    """Of the library that it comes from."""
    said: tuple[str, ...] = ()
    """What a person should know of how it was loaded."""


def load(asked: Asked, task: Task, images: Tensor, classes: int) -> Outside:
    """The model that is asked for, on the device of the `images` (N, C, H, W), some of the task's own.

    Raises BadInput with one line that says what to change.
    """
    word, family = asked.word, asked.word.partition(":")[0]
    if asked.checkpoint and not Path(word).is_dir():
        raise BadInput(f"--checkpoint {asked.checkpoint}: only a run folder has two; {word} is none")
    if asked.weights and not asked.weights.is_file() and str(asked.weights) not in Library.published:
        raise BadInput(f"--weights {asked.weights}: no such file")
    if Path(word).is_dir():
        found = _of_run(asked, images, classes)
    elif family.endswith(".py"):
        found = _of_file(asked, classes)
    elif family == "robustbench":
        found = _of_zoo(asked, task)
    elif Path(word).is_file():
        raise BadInput(f"{word}: a file is no model; name its run's folder, or FILE.py:NAME and --weights {word}")
    elif "/" in word:
        raise BadInput(f"{word}: no such folder, and no file that ends with .py:NAME")
    else:
        found = _of_name(asked, task, images, classes)
    sha256 = found.about.get("weights_sha256")
    if asked.weights_sha256 is not None and asked.weights_sha256.lower() != sha256:
        raise BadInput(f"{word}: its weights have the sha256 {sha256}, and --weights-sha256 asks for another")
    found = replace(found, said=(*found.said, *check(found.network, images, classes, word)))
    if sha256 is None:
        # Weights that nobody can see: what it answers stands for them, on an accelerator as far as it answers alike.
        # A model that draws numbers of its own answers nothing twice; it is known by its sources alone.
        one, other = (_answers(found.network, images) for _ in range(2))
        if torch.equal(one, other):
            found.about["answers_sha256"] = digest({"answers": one})
    return found


@torch.no_grad()
def _answers(network: nn.Module, images: Tensor) -> Tensor:
    with own_streams(0, images.device):
        logits = network(images)
    return logits if images.device.type == "cpu" else (logits / logits.abs().max() / CLOSE).round()


def check(network: nn.Module, images: Tensor, classes: int, word: str) -> tuple[str, ...]:
    """Put `network` into eval mode on the images' device and see whether it answers as it should.

    Returns what a person should know of it, which flags will say again with numbers. Raises BadInput.
    """
    said: list[str] = []
    for name, value in network.state_dict().items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float32:
            raise BadInput(f"{word}: {name} is {_kind(value.dtype)}; return model.float()")
    try:
        network.to(images.device).eval()
    except Exception as error:  # parameters without values, for one
        raise BadInput(f"{word}: cannot be moved to {images.device}: {str(error).splitlines()[0]}") from None
    x = images.clone().requires_grad_()
    try:
        logits = answer(network, x, classes)
    except Unfit as error:
        shape = tuple(images.shape)
        given = f"images come as float32 {shape} in [0, 1] on {images.device}"
        raise BadInput(f"{word}: {error}; {given}, and logits (N, {classes}) should come out") from error.__cause__
    if logits.dtype != torch.float32:
        raise BadInput(f"{word}: it answers in {_kind(logits.dtype)}; its logits should be float32: add .float()")
    slope = torch.autograd.grad(logits.sum(), x, allow_unused=True)[0] if logits.requires_grad else None
    if slope is None:
        said.append(f"{word}: its logits have no gradient by the images, so attacks that follow one will find nothing")
    try:
        with torch.no_grad():
            same, seen = images.clone(), answer(network, images, classes)
            # What answers otherwise each time has no answer of its own to compare.
            steady = torch.equal(seen, answer(network, images, classes))
            alone = torch.cat([answer(network, image[None], classes) for image in images])
    except Unfit as error:
        needs = "it should answer without gradients and for one image as well"
        raise BadInput(f"{word}: {error}; {needs}: torch.enable_grad() where it takes derivatives") from error.__cause__
    if not torch.equal(same, images):
        raise BadInput(f"{word}: it writes into the images it is given; compute a new tensor there")
    if steady and (alone - seen).abs().max() > CLOSE * seen.abs().max():
        said.append(f"{word}: its answer for an image changes with the rest of the batch")
    return tuple(said)


def _of_file(asked: Asked, classes: int) -> Outside:
    path, _, name = asked.word.rpartition(":")
    if not path.endswith(".py"):
        raise BadInput(f"{asked.word}: say what in it makes the model: {asked.word.rstrip(':')}:NAME")
    network, sources = factory.made(Path(path), name, classes)
    about: dict[str, Any] = {"name": asked.word, "factory": name, "sources": sources}
    said: tuple[str, ...] = ()
    if asked.weights:
        if isinstance(network, factory.Called):
            raise BadInput(f"{asked.word}: returned no nn.Module, so --weights cannot be filled in; load them there")
        about, said = _filled(network, asked.weights, classes, about)
    elif state := network.state_dict():
        about["weights_sha256"] = digest(state)
        if digest(factory.made(Path(path), name, classes, seed=1)[0].state_dict()) != about["weights_sha256"]:
            raise BadInput(f"{asked.word}: its weights are drawn anew each time; give the trained ones as --weights")
    return Outside(network, _label(Path(path).stem, name, asked.weights), about, {}, said)


def _of_zoo(asked: Asked, task: Task) -> Outside:
    name = asked.word.partition(":")[2]
    network, digests = zoo.load(name, task.data.name, task.threat.norm, asked.weights)
    sha256 = zoo.one(digests) or digest(network.state_dict())
    about: dict[str, Any] = {"name": asked.word, "zoo": f"{name}/{task.threat.norm}", "weights_sha256": sha256}
    if len(digests) > 1:
        about["files"] = digests
    if asked.weights:
        about["weights"] = str(asked.weights)
    return Outside(network, _label(name, "", None), about, {"robustbench": version("robustbench")})


def _of_run(asked: Asked, images: Tensor, classes: int) -> Outside:
    if asked.weights:
        raise BadInput(f"{asked.word}: is a run folder, which has its weights; leave --weights out")
    checkpoint = asked.checkpoint or "best"
    record, runs = _record(Path(asked.word))
    file = runs / f"{checkpoint}.safetensors"
    if not file.is_file():
        raise BadInput(f"{asked.word}: its weights are not on this machine: there is no {file}")
    found = read(file)
    said = record.provenance.get("weights_sha256")
    wanted = said.get(checkpoint) if isinstance(said, Mapping) else None  # pyright: ignore[reportUnknownMemberType]
    if wanted not in (None, found.sha256):
        raise BadInput(f"{file}: not the weights of the record: sha256 {found.sha256[:12]}, not {str(wanted)[:12]}")
    model = find.named(Model, record.job["model"])
    network = model.build(_shape(images), classes)
    _fit(network, found, file, classes, own=True)
    about = {"name": asked.word, "family": record.job["model"], "weights_sha256": found.sha256}
    about |= {} if checkpoint == "best" else {"checkpoint": checkpoint}
    last = "" if checkpoint == "best" else f"-{checkpoint}"
    return Outside(network, f"{record.label}-s{record.seed}{last}", about, _versions(model))


def _record(folder: Path) -> tuple[Record, Path]:
    """The record of a job's folder, of either kind, and the folder of its weights."""
    here = folder.resolve()
    kind, path = here.parent.parent, f"{here.parent.name}/{here.name}"
    results = kind.parent
    file = record_folder(results, path) / "record.json"
    if kind.name not in ("runs", "records") or not file.is_file():
        raise BadInput(f"{folder}: no job of `advbench run`; give results/records/TASK/LABEL-sN of a finished one")
    record = load_record(file)
    if record.status != "ok" or "defense" not in record.job:
        why = "failed" if record.status != "ok" else "was trained elsewhere"
        raise BadInput(f"{folder}: its job {why}, so there are no weights of ours to evaluate")
    return record, run_folder(results, path)


def _of_name(asked: Asked, task: Task, images: Tensor, classes: int) -> Outside:
    # A task that trains this very family says what its normalisation and its sizes are.
    fields = task.model.fields if task.model.name == asked.word else {}
    kept = {key: value for key, value in fields.items() if not key.startswith(("pretrained", "extra_data"))}
    model = find.named(Model, {"name": asked.word, **kept})
    if asked.weights is None:
        published = f", or --weights {model.published[0]}" if model.published else ""
        raise BadInput(f"{asked.word}: would answer with untrained weights; give --weights FILE{published}")
    name, about = str(asked.weights), {"name": asked.word, "family": find.plain(model)}
    if name in model.published:
        model = find.named(Model, {"name": asked.word, **kept, "pretrained": name, "extra_data": "none"})
        try:
            model = settle(model, Path())
            network, told = start(model, _shape(images), classes, Path())
        except Missing as missing:
            said = str(missing).partition(";")[0]
            raise BadInput(f"{said}; fetch them on a machine with a network, or give --weights FILE") from None
        if not str(told["pretrained_head"]).startswith("kept"):
            raise BadInput(f"{asked.word}: the {name} weights are of other classes: {told['pretrained_head']}")
        about |= {"weights": name, "weights_sha256": model.pretrained_sha256}
        return Outside(network, _label(asked.word, name, None), about, _versions(model))
    network = model.build(_shape(images), classes)
    about, said = _filled(network, asked.weights, classes, about)
    return Outside(network, _label(asked.word, "", asked.weights), about, _versions(model), said)


def _filled(
    network: nn.Module, path: Path, classes: int, about: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`network` with the weights of a file; `about` with their digest, and what was unwrapped."""
    found = read(path)
    gone = _fit(network, found, path, classes)
    said = [f"{path}: {found.said}"] if found.said else []
    said += [f"{path}: every name began with '{gone}', which was taken off"] if gone else []
    return about | {"weights": str(path), "weights_sha256": found.sha256}, tuple(said)


def _fit(network: nn.Module, found: Read, path: Path, classes: int, *, own: bool = False) -> str:
    tensors, gone = (found.tensors, "") if own else renamed(found.tensors, network.state_dict())
    try:
        fill(network, tensors, classes, whole=True)
    except BadInput as error:
        raise BadInput(f"{path}: does not fit the model: {error}") from None
    return gone


def _versions(model: Model) -> dict[str, str]:
    library = model.name.partition(":")[0]
    return {library: version(library)} if isinstance(model, Library) else {}


def _shape(images: Tensor) -> tuple[int, int, int]:
    return images.shape[1], images.shape[2], images.shape[3]


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _label(*parts: str | Path | None) -> str:
    """`nets-small-epoch90` of words and files, in letters that name folders."""
    words = [part.stem if isinstance(part, Path) else part for part in parts if part]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(words)).strip("-._")[:100] or "model"
