"""Accuracy under common corruptions, a rung beside the ladder: Hendrycks and Dietterich 2019 (arXiv 1903.12261).

A corrupted image is no adversarial example in a ball, so nothing here touches robust accuracy. An example meets the
same corruption whatever the batch, the device and the model. Images stay floats, where the published files are rounded
down to bytes and ImageNet-C's are stored as JPEG.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advbench import distortions, severities
from advbench.data.base import Examples
from advbench.judge import judge
from advbench.memory import Size
from advbench.seal import keep, mend
from advbench.seeds import derive, own_streams
from advbench.spec import BadInput

Found = dict[str, dict[int, float]]
"""Accuracy by corruption and severity."""


def corrupt(name: str, severity: int, x: Tensor, index: Tensor, seed: int) -> Tensor:
    """Images x (B, 1 or 3, H, W) in [0, 1], corrupted; the same shape, in [0, 1].

    The random numbers belong to (`seed`, `name`, `severity`) and to the example's place in its split, `index` (B,).
    Raises BadInput for an unknown name, a severity other than 1 to 5, and images that the corruption is not made for.

    >>> corrupt("contrast", 5, torch.tensor([[[[0.0, 1.0]] * 8] * 8]).view(1, 1, 8, 16), torch.zeros(1), 0).max()
    tensor(0.5750)
    """
    _, channels, height, width = x.shape
    side = min(height, width)
    try:
        severities.known([name])
    except ValueError as error:
        raise BadInput(f"evaluation.corruptions: {error}") from None
    if severity not in severities.SEVERITIES:
        raise BadInput(f"a corruption's severity is 1, 2, 3, 4 or 5, not {severity}")
    if channels not in (1, 3):
        raise BadInput(f"evaluation.corruptions: needs grey or RGB images, not {channels} channels; leave it out")
    severities.fitting([name], side)
    draw = distortions.Draws([derive(seed, "corruption", name, severity, i) for i in index.tolist()], x.device)
    operator: Callable[..., Tensor] = getattr(distortions, name.replace("-", "_"))
    return operator(x, draw, *severities.strength(name, severity, side)).clamp(0, 1)


def _silent(*news: Any) -> None:
    del news


@torch.no_grad()
def accuracies(
    model: nn.Module,
    examples: Examples,
    names: Sequence[str] | str,
    seed: int,
    batch: int,
    journal: Path | None = None,
    key: str = "",
    tell: Callable[[str, int, int, str], None] = _silent,
    votes: int = 1,
) -> Found:
    """The accuracy of `model`, which is in eval mode, under each corruption of `names` ("all") at each severity.

    Who is right is decided as in the ledger, by `judge` and its `votes`. `batch` examples go forward at a time, fewer
    where memory is short. The `journal` file is written after every corruption, and what it holds for the same `key`
    and seed (weights, data) is not done again. Raises BadInput as `corrupt` does, before anything runs.
    """
    names = severities.fitting(names, min(examples.pixels(slice(0, 1)).shape[2:]))
    key = f"{key}/{seed}/{votes}"
    if journal is not None:
        mend(journal, lambda words: tell("note", 0, 0, words))
    found = _read(journal, key)
    size = Size(batch, lambda words: tell("evaluate", 0, len(names), words))
    for number, name in enumerate(names):
        if name in found:
            continue
        tell("evaluate", number, len(names), name)
        found[name] = {s: _accuracy(model, examples, name, s, seed, size, votes) for s in severities.SEVERITIES}
        if journal is not None:
            keep(journal, json.dumps({"key": key, "found": found}).encode())
    return {name: found[name] for name in names}


def _accuracy(
    model: nn.Module, examples: Examples, name: str, severity: int, seed: int, size: Size, votes: int
) -> float:
    right = torch.zeros(len(examples), dtype=torch.bool, device=examples.device)

    def look(rows: Tensor) -> None:
        images = corrupt(name, severity, examples.pixels(rows), examples.index[rows], seed)
        right[rows] = judge(model, images, examples.labels[rows], votes).right

    # A model that draws random numbers draws the same ones again.
    with own_streams(derive(seed, "corrupted", name, severity), examples.device):
        size.each(torch.arange(len(examples), device=examples.device), look)
    return int(right.sum()) / len(examples)


def _read(journal: Path | None, key: str) -> Found:
    """What an earlier try found; nothing where its file is absent, broken or for something else."""
    try:
        kept = json.loads(journal.read_bytes()) if journal is not None else {}
        if kept.get("key") != key:
            return {}
        return {name: {int(s): float(share) for s, share in row.items()} for name, row in kept["found"].items()}
    except (OSError, ValueError, KeyError, AttributeError):
        return {}
