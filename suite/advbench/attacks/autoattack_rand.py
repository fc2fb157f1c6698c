"""AutoAttack's rand version, for models that answer at random. Croce and Hein, ICML 2020 (arXiv 2003.01690).

APGD-CE and APGD-DLR, one run each, on gradients averaged over 20 passes (Athalye et al., ICML 2018, arXiv 1802.00420).
The authors' package counts an example as broken once a single pass of a hundred steps got it wrong, which a random
model does by chance; and it compares the losses of single passes. Here nobody leaves before the end, losses are
averaged as gradients are, and the point of the highest mean loss is judged.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field

from advbench.attacks.apgd import APGD, LEAST_CLASSES
from advbench.attacks.base import Attack

EOT: Final = 20
"""Passes a step, as in the package."""


class AutoAttackRand(Attack):
    """APGD-CE and APGD-DLR over 20 passes a step, for models that answer at random; no example leaves early.

    Below three classes, where the DLR loss is not defined, APGD-CE alone.
    """

    name = "autoattack-rand"
    paper = "arXiv 2003.01690"

    restarts: int = Field(default=1, ge=1, le=1)
    """The rand version's; more of them would be another protocol."""

    def parts(self, classes: int) -> tuple[Attack, ...]:
        ce = APGD(loss="ce", runs=1, eot=EOT, label="apgd-ce-eot")
        return (ce, APGD(loss="dlr", runs=1, eot=EOT, label="apgd-dlr-eot")) if _has_dlr(classes) else (ce,)

    def protocol(self, classes: int) -> str:
        return self.key if _has_dlr(classes) else "apgd-ce-eot"


def _has_dlr(classes: int) -> bool:
    return classes >= LEAST_CLASSES["dlr"]
