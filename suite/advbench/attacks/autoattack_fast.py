"""AutoAttack standard on our own engine: the same attacks, numbers and laws, in less time. arXiv 2003.01690.

APGD-CE, APGD-T, FAB-T and Square as `apgd.py`, `fab.py` and `square.py` have them: an example leaves as soon as it is
fooled, and what one has still to do shares its passes with what others have. How near that comes to the authors'
verdict, example by example, `tests/benchmarks/parity.py` measures.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from advbench.attacks.apgd import APGD
from advbench.attacks.autoattack import PARTS, PARTS_BELOW_FOUR_CLASSES, AutoAttackPart
from advbench.attacks.base import Attack
from advbench.attacks.fab import FAB
from advbench.attacks.square import Square
from advbench.inference import Precision
from advbench.seeds import BlockNoise
from advbench.threat import Threat


class FastPart(AutoAttackPart):
    """One of the attacks, with the hyper-parameters of the standard version, in batches of any size."""

    whole_block: ClassVar[bool] = False

    precision: Precision = "fp32"

    @property
    def passes(self) -> Precision:
        """Square's margins tie when they are rounded, and it then finds a third less."""
        return self.precision if self.follows_gradient else "fp32"

    @property
    def attack(self) -> Attack:
        """The attack itself."""
        match self.part:
            case "apgd-ce":
                return APGD(loss="ce")
            case "apgd-t":
                return APGD(loss="dlr-targeted")
            case "fab-t":
                return FAB()
            case "fab":
                return FAB(targets=0, starts=5)
            case "square":
                return Square(queries=self.queries)

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        return self.attack.run(model, x, y, threat, noise)


class AutoAttackFast(Attack):
    """The same four on our engine, where fooled examples leave at once.

    APGD-CE, APGD-T, FAB-T (9 targets each, 100 iterations) and Square (5,000 queries). In L1 five starts of APGD-CE and
    five targets of APGD-T, whose radius shrinks from 3 eps to eps. Below four classes APGD-CE, untargeted FAB and
    Square, the first two with five starts.
    """

    name = "autoattack-fast"
    paper = "arXiv 2003.01690"

    precision: Precision = "fp32"
    """Number format in which APGD and FAB look for candidates. "bf16": faster where the device multiplies it natively;
    what it finds is checked in fp32, so that it can only miss something."""
    restarts: int = Field(default=1, ge=1, le=1)
    """The standard version's; more of them would be another protocol."""

    def parts(self, classes: int) -> tuple[Attack, ...]:
        names = PARTS if classes >= 4 else PARTS_BELOW_FOUR_CLASSES
        return tuple(FastPart(part=name, classes=classes, precision=self.precision) for name in names)

    def protocol(self, classes: int) -> str:
        name = self.key if classes >= 4 else "+".join(PARTS_BELOW_FOUR_CLASSES)
        return name if self.precision == "fp32" else f"{name} ({self.precision})"
