"""AutoAttack standard, by its authors' own package. Croce and Hein, ICML 2020 (arXiv 2003.01690).

The package runs as it is, one part at a time on what still stands, which is what its own
`run_standard_evaluation` does; our ledger keeps the state, because the package's own resume never works.
Its noise is drawn per batch, so a part always gets its whole block in one batch. What the package warns of goes
into the job's log.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.seeds import BlockNoise
from advbench.threat import Threat

PARTS: Final = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The standard version, in its order."""
PARTS_BELOW_FOUR_CLASSES: Final = ("apgd-ce", "fab", "square")
"""APGD-T and FAB-T look at the third and fourth best class and raise IndexError where there is none. In their place
APGD-CE and untargeted FAB get five restarts each, as in the package's `custom` and `plus` versions."""


class AutoAttackPart(Attack):
    """One of AutoAttack's attacks, with the hyper-parameters of the standard version (from four classes on)."""

    paper = "arXiv 2003.01690"
    everywhere: ClassVar[bool] = False
    whole_block: ClassVar[bool] = True

    part: Literal["apgd-ce", "apgd-t", "fab-t", "square", "fab"]
    classes: int
    queries: int = 5000
    """Square's query budget."""

    @property
    def key(self) -> str:
        return self.part

    @property
    def follows_gradient(self) -> bool:
        return self.part != "square"

    def alone(self) -> AutoAttackPart:
        """The same attack with the smaller Square that the `alone` scores use.

        Its first 1,000 queries follow the same law in both (the standard version does not rescale its schedule to
        the budget), so what withstands 5,000 withstands 1,000.
        """
        if self.part != "square":
            return self
        return self.model_copy(update={"queries": min(self.queries, 1000)})

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        package = _package(self, model, threat, noise.seed, x.device)
        # The package seeds torch's global streams; training must not notice.
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            candidates, _ = package.run_standard_evaluation(x, y, batch_size=len(x))
        return candidates


def _package(part: AutoAttackPart, model: nn.Module, threat: Threat, seed: int, device: torch.device) -> Any:
    from pyautoattack import AutoAttack as Package

    if part.classes < 4:
        package = Package(
            model, norm=threat.norm, eps=threat.eps, seed=seed, device=device, version="custom", attacks=[part.part]
        )
        # APGD's steps of falling radius in L1, which the package itself turns on in the standard version only.
        package.apgd.use_largereps = threat.norm == "L1"
    else:
        package = Package(model, norm=threat.norm, eps=threat.eps, seed=seed, device=device, version="standard")
        package.attacks_to_run = [part.part]
        for attack in (package.apgd_targeted, package.fab):
            attack.n_target_classes = min(attack.n_target_classes, part.classes - 1)
    package.square.n_queries = part.queries
    package.verbose = False
    return package


class AutoAttack(Attack):
    """APGD-CE, APGD-T, FAB-T (9 targets each, 100 iterations) and Square (5,000 queries), by the authors' package.

    In L1, by the package's standard version (Croce and Hein, ICML 2021, arXiv 2103.01208): five restarts of APGD-CE,
    five targets of APGD-T, and both shrink the radius from 3 eps to eps.
    """

    name = "autoattack"
    paper = "arXiv 2003.01690"

    restarts: int = Field(default=1, ge=1, le=1)
    """The standard version's; more of them would be another protocol."""

    def parts(self, classes: int) -> tuple[Attack, ...]:
        names = PARTS if classes >= 4 else PARTS_BELOW_FOUR_CLASSES
        return tuple(AutoAttackPart(part=name, classes=classes) for name in names)

    def protocol(self, classes: int) -> str:
        return self.key if classes >= 4 else "+".join(PARTS_BELOW_FOUR_CLASSES)
