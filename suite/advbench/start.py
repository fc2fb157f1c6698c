"""A model before its first step: built, checked against the images, filled with the weights it starts from.

Weights come from a .safetensors file under the data root, or from the library that publishes them; nothing is ever
unpickled. Their digest is a field of the resolved model, so that other weights are another job.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from advbench.data.base import Missing
from advbench.models.base import Model, Normalize, Shape
from advbench.models.library import Library, Published
from advbench.spec import BadInput
from advbench.trial import Unfit, answer
from advbench.weights import Weights, opened

SHOWN = 3
"""Tensors that a complaint names before it counts the others."""


def files(model: Model, root: Path) -> list[Path]:
    """The file of weights that `model` starts from, if it does. Raises Missing."""
    if model.pretrained is None or model.pretrained in model.published:
        return []
    if not (path := root / model.pretrained).is_file():
        raise Missing.at(path, "put the pretrained weights there")
    return [path]


def settle(model: Model, root: Path) -> Model:
    """`model` with what its weights decide filled in: their digest and, for a library's, their normalisation.

    Raises Missing when they are not on this machine, BadInput when they are not the ones the task asks for.
    """
    if model.pretrained is None:
        return model
    _, digest, origin = _read(model, root)
    if model.pretrained_sha256 not in (None, digest):
        raise BadInput(f"model.pretrained_sha256: {model.pretrained} has the digest {digest}")
    found: dict[str, Any] = {"pretrained_sha256": digest}
    if origin:
        found |= {k: getattr(origin, k) for k in ("mean", "std") if k not in model.model_fields_set}
    return model.model_copy(update=found)


def start(model: Model, shape: Shape, classes: int, root: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network at its first step, and what its record should say of that. Raises BadInput.

    A head of another number of classes stays as torch's global stream drew it; everything else has to fit.
    """
    network = model.build(shape, classes)
    # Its version is a part of where the result comes from.
    library = model.name.partition(":")[0]
    told: dict[str, Any] = {library: version(library)} if isinstance(model, Library) else {}
    if model.pretrained is None:
        return network, told
    weights, digest, _ = _read(model, root)
    if digest != model.pretrained_sha256:
        raise BadInput(f"model.pretrained: {model.pretrained} changed since the plan was made; run again")
    try:
        return network, told | {"pretrained_head": fill(network, weights, classes)}
    except BadInput as error:
        cut = isinstance(model, Library) and model.fits(shape)
        advice = '; stem = "original" keeps the first layers as the library has them' if cut else ""
        raise BadInput(f"model.pretrained: {model.pretrained} does not fit {model.name}: {error}{advice}") from None


def probe(model: Model, shape: Shape, classes: int, root: Path) -> None:
    """Two images through the started network; leaves torch's global stream as it was.

    Raises BadInput that names the layer at which they get stuck, or what is wrong with the answer.
    """
    with torch.random.fork_rng([]), torch.no_grad():
        network = start(model, shape, classes, root)[0].eval()
        try:
            answer(network, torch.rand(2, *shape), classes)
        except Unfit as error:
            where = f"model.name: {model.name} does not fit images of {shape}"
            raise BadInput(f"{where}: {error}; take another model or other weights") from None


def _read(model: Model, root: Path) -> tuple[Weights, str, Published | None]:
    """The weights, their digest and, where a library publishes them, what else it says."""
    if model.pretrained in model.published:
        assert isinstance(model, Library)
        try:
            with torch.random.fork_rng([]):  # a library may draw a network to fill
                origin = model.download()
        except Exception as error:  # no network, no such file, no such weights: each library says it in its own way
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise Missing(
                f"the {model.pretrained} weights of {model.name} cannot be had here ({said}); fetch them on a machine"
                " with a network, or give pretrained a .safetensors file"
            ) from None
        weights = {name: value.contiguous() for name, value in origin.weights.items()}
        return weights, hashlib.sha256(save(weights)).hexdigest(), origin
    [path] = files(model, root)
    try:
        return *opened(path), None
    except BadInput as error:
        raise BadInput(f"model.pretrained: {error}") from None


def fill(network: nn.Module, weights: Weights, classes: int, *, whole: bool = False) -> str:
    """Load `weights` in place; what became of the head. Raises BadInput with the first tensors that do not fit.

    `whole`: nothing stays as it was drawn, and the constants of the normalisation are those of the weights.
    """
    ours = network.state_dict()
    # The library's own files know nothing of the normalisation that stands before its network here.
    inside = {f"1.{name}": value for name, value in weights.items()}
    if weights.keys().isdisjoint(ours) and not inside.keys().isdisjoint(ours):
        weights = inside
    constants = {
        f"{name}.{key}"
        for name, module in network.named_modules()
        if isinstance(module, Normalize)
        for key in module.state_dict()
    }
    counted = {name for name in ours if name.endswith(".num_batches_tracked")}
    said = [f"it lacks {name}" for name in ours if name not in weights and name not in constants | counted]
    said += [f"{name} is not in the model" for name in weights if name not in ours]
    other = {name for name in ours if name in weights and weights[name].shape != ours[name].shape}
    head = set[str]() if whole else _heads(ours, weights, other, classes)
    said += [
        f"{name} is {tuple(weights[name].shape)}, here {tuple(ours[name].shape)}"
        for name in ours
        if name in other - head
    ]
    for name in () if whole else constants & weights.keys() - other:
        if not torch.allclose(ours[name], weights[name].to(ours[name])):
            values = ", ".join(f"{value:g}" for value in weights[name].flatten().tolist())
            said.append(f"it was trained with {name.split('.')[-1]} = [{values}]; write so")
    if said:
        more = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        raise BadInput("; ".join(said[:SHOWN]) + more)
    network.load_state_dict({name: value for name, value in weights.items() if name not in head}, strict=False)
    if not head:
        return "kept"
    count = weights[min(head)].shape[0]
    return f"drawn anew: {classes} classes, where the weights have {count}"


def _heads(ours: Weights, weights: Weights, other: set[str], classes: int) -> set[str]:
    """Those of the `other` tensors that differ in nothing but the number of classes.

    A layer inside the network of another width would also change the one that reads it, so it is not mistaken for one.
    """
    heads = {n for n in other if ours[n].shape[:1] == (classes,) and ours[n].shape[1:] == weights[n].shape[1:]}
    return heads if heads == other and len({weights[name].shape[0] for name in heads}) == 1 else set()
