"""What an attack is: hyper-parameters and one method that proposes candidates."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from advbench.inference import Precision
from advbench.judge import judge
from advbench.seeds import BlockNoise
from advbench.spec import Part
from advbench.threat import Norm, Threat


def fooled(model: nn.Module, x: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    """Which of the points x (N, ...) are wrong by their logits (N, C), so that they may leave the attack, (N,) bool.

    A model whose passes are rounded carries an exact one as `judge`: those that look fooled are asked again there, and
    so they are where the model has a detector, which must let them through. Logits that are not finite are no success
    here; the ledger decides what they are.
    """
    wrong = (logits.argmax(1) != y) & logits.isfinite().all(1)
    exact: Any = getattr(model, "judge", model)
    if (exact is not model or callable(getattr(exact, "reject", None))) and wrong.any():
        wrong[wrong.clone()] = judge(exact, x[wrong], y[wrong]).fooled
    return wrong


class Attack(Part):
    """Base of all attacks. A subclass sets `name` and `paper` and writes `run`."""

    paper: ClassVar[str]
    norms: ClassVar[tuple[Norm, ...]] = ("Linf", "L2", "L1")
    everywhere: ClassVar[bool] = True
    """Cheap enough to meet every correct example, broken or not, so that its score alone is known too."""
    whole_block: ClassVar[bool] = False
    """Must get its examples in one batch, because its random numbers belong to the batch."""

    label: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Its name in the scores; default: the attack's name."""
    restarts: int = Field(default=1, ge=1, le=1000)
    """Independent runs; an example stands only if it withstands every one."""

    @property
    def key(self) -> str:
        return self.label or self.name

    def plain(self) -> dict[str, Any]:
        """As JSON types, every default filled in.

        A field that says nothing is left out, so that a record that is older than the field tells of the same attack;
        `label` stands in all of them.
        """
        return {name: value for name, value in super().plain().items() if value is not None or name == "label"}

    @property
    def follows_gradient(self) -> bool:
        """Whether it needs the input gradient, so that a vanished gradient explains a failure."""
        return True

    @property
    def passes(self) -> Precision | None:
        """Number format of the quick passes that it may look for candidates with; None: the model's own passes."""
        return None

    def parts(self, classes: int) -> tuple[Attack, ...]:
        """The rungs it stands for on a model with `classes` classes: itself, unless it is an ensemble."""
        del classes
        return (self,)

    def protocol(self, classes: int) -> str:
        """What a robust accuracy measured by it is called."""
        del classes
        return self.key

    def alone(self) -> Attack:
        """The attack as the `alone` scores run it."""
        return self

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        """Candidates for (N, ...) examples in [0, 1] with labels (N,), of x's shape.

        `model` is in eval mode with frozen parameters. No claim of success is made or believed.
        """
        raise NotImplementedError
