"""Transfer: candidates found on another network. Papernot, McDaniel and Goodfellow 2016 (arXiv 1605.07277).

Adversarial examples of one model often fool another. Where they fool more of a defense's examples than its own gradient
does, that gradient hides something. Passes on the surrogate are no passes of the target.

`advbench.surrogate` finds the weights and builds the network; here it is only used.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, PrivateAttr, field_validator
from torch import Tensor, nn

from advbench.attacks.base import Attack
from advbench.seeds import BlockNoise
from advbench.task import Entry
from advbench.threat import Threat


class Transfer(Attack):
    """What another attack finds on a surrogate, judged on the target."""

    name = "transfer"
    paper = "arXiv 1605.07277"

    surrogate: Entry = Field(json_schema_extra={"table": "model"})
    """The network to find candidates on: a table as `[model]`, with `pretrained` weights and what they saw."""
    attack: Entry = Field(default=Entry(name="pgd"), json_schema_extra={"table": "attack"})
    """How they are found: any attack but an ensemble. One that stops when the surrogate is fooled (apgd, fab, square)
    transfers less well than one that goes on (pgd, mi-fgsm)."""
    _found: tuple[nn.Module, Attack] | None = PrivateAttr(None)

    @field_validator("surrogate", "attack", mode="before")
    @classmethod
    def _names(cls, entry: Any) -> Any:
        return {"name": entry} if isinstance(entry, str) else entry

    @property
    def follows_gradient(self) -> bool:
        return False

    @property
    def whole_block(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As its attack."""
        return self._found is not None and self._found[1].whole_block

    def on(self, network: nn.Module, attack: Attack) -> Self:
        """A copy that is ready to run: `network` is in eval mode, frozen, and on the examples' device."""
        made = self.model_copy()
        made._found = network, attack
        return made

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        del model
        if self._found is None:
            raise RuntimeError("transfer has no network yet: advbench.surrogate.prepared makes it ready")
        network, attack = self._found
        return attack.run(network, x, y, threat, noise)
