"""Square Attack: random search with squares, no gradients. Andriushchenko et al., ECCV 2020 (arXiv 1912.00049).

As AutoAttack runs it: untargeted, on the margin, 5,000 queries. Its L1 version is in Croce and Hein, ICML 2021 (arXiv
2103.01208). Each example meets the law of the authors' package `pyautoattack`: a block of one example even meets its
very numbers. Only the joint law differs: there a whole batch shares its squares (and in Linf their signs), here every
example has its own, so that its outcome does not depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Final

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack, fooled
from advbench.attacks.squares import Constant, Pyramids, Squares
from advbench.seeds import BlockNoise
from advbench.threat import Threat

HALVINGS: Final = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these queries of 10,000 the squares have half the area."""


class Square(Attack):
    """Random search: a candidate with a square changed is kept where it has a smaller margin.

    Its passes should not be rounded: rounded margins tie, and a random search then stands still.
    """

    name = "square"
    paper = "arXiv 1912.00049"
    everywhere: ClassVar[bool] = False

    queries: int = Field(default=5000, ge=1, le=1_000_000)
    """Candidates after the start (AutoAttack: 5,000)."""
    p_init: float = Field(default=0.8, gt=0, le=1)
    """Share of the image's area that the first squares have (AutoAttack: 0.8)."""
    rescale_schedule: bool = False
    """Stretch the schedule of areas, made for 10,000 queries, to `queries` (AutoAttack: not)."""

    @property
    def follows_gradient(self) -> bool:
        return False

    def alone(self) -> Square:
        """With 1,000 queries at most: the first of the same law, so what withstands more of them withstands these.

        A schedule that is stretched to the number of queries has no such beginning, and is kept.
        """
        return self if self.rescale_schedule else self.model_copy(update={"queries": min(self.queries, 1000)})

    def area(self, query: int) -> float:
        """Share of the image's area that the square of the given query (from 0) has."""
        if self.rescale_schedule:
            query = int(query / self.queries * 10_000)
        return self.p_init / 2 ** sum(query > end for end in HALVINGS)

    def sides(self, threat: Threat, height: int, width: int) -> list[int]:
        """The squares' sides in pixels, query by query. In L2 and L1 odd, from 3 on, where the image allows it."""
        found: list[int] = []
        for query in range(self.queries):
            side = round(math.sqrt(self.area(query) * height * width))
            side = max(side, 1) if threat.norm == "Linf" else max(side, 3) // 2 * 2 + 1
            found.append(min(side, height, width))
        return found

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        squares = (Constant if threat.norm == "Linf" else Pyramids)(x, threat, noise)
        with torch.inference_mode():
            found = _search(model, x, y, squares, self.sides(threat, *x.shape[2:]))
        # Inference mode's tensors may not be changed outside of it.
        return found.clone()


def _search(model: nn.Module, x: Tensor, y: Tensor, squares: Squares, sides: Sequence[int]) -> Tensor:
    """For each example the first point that fools the model, or else the one of the smallest margin, (N, C, H, W)."""
    found = torch.empty_like(x)
    rows = torch.arange(len(x), device=x.device)
    label = y[:, None]
    best = x.new_full((len(x), 1), torch.inf)
    for candidate, asked in squares.candidates(sides):
        own, least = (label, best) if asked is None else (label[asked], best[asked])
        logits = model(candidate)
        margin = logits.gather(1, own) - logits.scatter(1, own, -torch.inf).amax(1, keepdim=True)
        # What is not finite is no progress.
        margin.nan_to_num_(torch.inf, torch.inf, torch.inf)
        better = (margin < least)[:, 0].nonzero()[:, 0]
        if not len(better):
            continue
        places = better if asked is None else asked[better]
        candidate, logits, margin = candidate[better], logits[better], margin[better]
        squares.accept(places, candidate)
        # Two logits may tie, and the example still stand: the next tie is as good.
        best[places] = margin.clamp_min(torch.finfo(margin.dtype).tiny)
        if margin.min() <= 0:
            done = fooled(model, candidate, logits, label[places, 0])
            found[rows[places[done]]] = candidate[done]
            stands = torch.ones_like(rows, dtype=torch.bool)
            stands[places[done]] = False
            kept = stands.nonzero()[:, 0]
            rows, label, best = rows[kept], label[kept], best[kept]
            squares.keep(kept)
            if not len(rows):
                return found
    found[rows] = squares.point
    return found
