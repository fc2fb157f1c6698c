"""A file of weights from any code base: tensors come out of it, and nothing in it is ever run.

A pickle can call any function while it is read. Torch's restricted reader (`weights_only`) builds tensors and plain
values and refuses the rest; the few harmless kinds that training scripts often keep beside the tensors are let through.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import io
import pickle
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from advbench.spec import BadInput

Weights = dict[str, Tensor]

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
"""What training scripts call the state dict in a checkpoint, the most telling name first."""


@dataclass(frozen=True)
class Read:
    """A file of weights as it was read."""

    tensors: Weights
    sha256: str
    """Of the file."""
    said: str = ""
    """What was unwrapped."""


def read(path: Path) -> Read:
    """The state dict in a .safetensors file or in one of torch.save. Raises BadInput that says what the file is."""
    found, sha256 = opened(path)
    tensors, said = _state_dict(path, found)
    for name, tensor in tensors.items():
        if kind := _odd(tensor):
            line = f"{path}: {name} is a {kind} tensor; where it was made, save a dense one with its values"
            raise BadInput(line)
    return Read(tensors, sha256, said)


def opened(path: Path) -> tuple[Any, str]:
    """All that such a file holds, whatever that is, and its sha256. Raises BadInput."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if path.suffix != ".safetensors":
        return _unpickled(path, content), sha256
    try:
        return load(content), sha256
    except SafetensorError as error:
        raise BadInput(f"{path}: is no whole safetensors file: {error}") from None
    except KeyError as error:  # the format knows more kinds of numbers than torch
        line = f"{path}: its numbers are {error.args[0]}, which torch has not; save them as F32"
        raise BadInput(line) from None


def harmless() -> AbstractContextManager[None]:
    """While it lasts, torch's restricted reader also takes arguments and numbers: values that call nothing."""
    numpy = importlib.import_module("numpy")
    inside = importlib.import_module("numpy._core.multiarray")
    kinds = [argparse.Namespace, numpy.ndarray, numpy.dtype, inside.scalar, inside._reconstruct]
    kinds += [kind for name, kind in vars(numpy.dtypes).items() if name.endswith("DType")]
    # Files of numpy 1 say where these lay then.
    old = [(getattr(inside, name), f"numpy.core.multiarray.{name}") for name in ("scalar", "_reconstruct")]
    return torch.serialization.safe_globals([*kinds, *old])


def digest(tensors: Mapping[str, Any]) -> str:
    """The sha256 of named tensors, whatever their order and wherever they lie; other values are passed over."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        if isinstance(value, Tensor):
            found.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def renamed(tensors: Weights, ours: Mapping[str, Any]) -> tuple[Weights, str]:
    """`tensors` under the names that a network has, and what that took off them.

    A wrapper (DataParallel's "module.", a compiled model's "_orig_mod.") puts one word before every name.
    """
    gone = ""
    while tensors and tensors.keys().isdisjoint(ours):
        first = {name.partition(".")[0] for name in tensors}
        if len(first) > 1 or any("." not in name for name in tensors):
            break
        gone += f"{first.pop()}."
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
    return tensors, gone


def _unpickled(path: Path, content: bytes) -> Any:
    if content[:200].lstrip()[:1] == b"<":
        raise BadInput(f"{path}: is a web page, not a file of weights: the download went wrong; fetch it again")
    try:
        with harmless():
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it needs {found[1]}" if found else "it holds more than tensors"
        raise BadInput(
            f"{path}: was not read: {what}, and a pickle can run code; where it was made, keep the tensors alone: "
            "torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # a torn archive, a text file, an empty one: torch meets each in its own way
        said = (str(error) or "it ends too early").splitlines()[0]
        raise BadInput(f"{path}: is no file of weights that torch can read: {type(error).__name__}: {said}") from None


def _state_dict(path: Path, found: Any) -> tuple[Weights, str]:
    """The state dict itself, out of the checkpoint that holds it."""
    if _tensors(found):
        return dict(found), ""
    if not isinstance(found, Mapping):
        raise BadInput(f"{path}: holds a {type(found).__name__}, not the state dict of a model")
    inside = {str(key): value for key, value in cast("Mapping[Any, Any]", found).items() if _tensors(value)}
    names = [name for name in WRAPPERS if name in inside] or list(inside)
    if not names:
        keys = ", ".join(map(repr, list(found)[:5])) or "nothing"
        raise BadInput(f"{path}: holds no state dict; there is {keys}")
    if len(names) > 1 and names[0] not in WRAPPERS:
        raise BadInput(f"{path}: holds several state dicts ({', '.join(names)}); keep one in a file of its own")
    others = [name for name in inside if name != names[0]]
    beside = f" (beside it: {', '.join(others)})" if others else ""
    return dict(inside[names[0]]), f"the state dict under '{names[0]}'{beside}"


def _tensors(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value:
        return False
    items = cast("Mapping[Any, Any]", value).items()
    return all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in items)


def _odd(tensor: Tensor) -> str:
    """What keeps a tensor from being copied into a network: it has no values, or not one for each place."""
    if tensor.is_meta or tensor.is_quantized:
        return "meta" if tensor.is_meta else "quantized"
    return "" if tensor.layout == torch.strided else str(tensor.layout).removeprefix("torch.")
