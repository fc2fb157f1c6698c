"""The quick accuracies of an epoch: what chooses a checkpoint and shows a collapse. No verdict."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advbench.attacks.pgd import ascend
from advbench.data.base import Examples
from advbench.precision import exact
from advbench.seeds import BlockNoise, derive
from advbench.threat import Threat


def validate(model: nn.Module, data: Examples, threat: Threat, batch: int) -> dict[str, float]:
    """Accuracies on `data` at the full eps: clean, FGSM, PGD-10, and the share of the most predicted class.

    The PGD is quick on purpose (10 steps of eps/4, one start): it chooses checkpoints and shows a collapse,
    it is no verdict. Every epoch meets the same random starts, whatever the batch; fp32 judges.
    """
    model.eval()
    device = data.device
    right = torch.zeros(3, dtype=torch.int64, device=device)
    predicted: list[Tensor] = []
    for first in range(0, len(data), batch):
        rows = slice(first, first + batch)
        x, y = data.pixels(rows), data.labels[rows]
        places = torch.arange(first, first + len(y), device=device)
        noise = BlockNoise(device, derive(0, "validation"), len(data), places)
        fgsm = ascend(model, x, y, threat, start=x, steps=1, step_size=threat.eps)
        pgd = ascend(model, x, y, threat, start=threat.random_start(x, noise), steps=10, step_size=threat.eps / 4)
        with torch.no_grad(), exact(model):
            guesses = [model(images).argmax(1) for images in (x, fgsm, pgd)]
        predicted.append(guesses[0])
        right += torch.stack([(guess == y).sum() for guess in guesses])
    model.train()
    clean, by_fgsm, by_pgd = (count / len(data) for count in right.tolist())
    top = int(torch.cat(predicted).bincount().max())
    return {"clean": clean, "fgsm": by_fgsm, "pgd": by_pgd, "top_class": top / len(data)}
