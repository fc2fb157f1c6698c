"""What a collector is: it looks at a trained model on given examples and returns numbers with units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from advbench.attacks.base import Attack
from advbench.attacks.pgd import PGD
from advbench.memory import Size
from advbench.seeds import BlockNoise, derive
from advbench.spec import Part
from advbench.threat import Threat


class NotApplicable(Exception):
    """The quantity does not exist for this model or threat; the message is the reason."""


@dataclass(frozen=True)
class Measure:
    """One number; None where it is not finite or does not exist, and a note says why."""

    value: float | None
    unit: str
    meaning: str


@dataclass(frozen=True)
class Measures:
    """What a collector found: numbers for a record, arrays for a plot, and remarks on how."""

    values: dict[str, Measure]
    arrays: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """(N, ...) by example, or curves; on the CPU once `advbench.collect` has returned them."""
    notes: tuple[str, ...] = ()


def measure(value: float | Tensor, unit: str, meaning: str) -> Measure:
    """A Measure; what is not finite becomes None."""
    number = float(value)
    return Measure(number if math.isfinite(number) else None, unit, meaning)


def typical(name: str, values: Tensor, unit: str, meaning: str) -> dict[str, Measure]:
    """`name`_median and `name`_mean of values (N,).

    A median, because unconfident examples outweigh all others in means. What overflowed counts as larger than any
    number, so that the median stands while the mean is None.
    """
    large = values.double().nan_to_num(nan=math.inf, posinf=math.inf, neginf=math.inf)
    median = large.quantile(0.5) if len(large) else math.nan
    return {
        f"{name}_median": measure(median, unit, f"{meaning}, median of the examples"),
        f"{name}_mean": measure(large.mean(), unit, f"{meaning}, mean of the examples"),
    }


def ranks(values: Tensor) -> Tensor:
    """Ranks of values (N,), ties sharing their mean rank."""
    found, inverse, counts = values.unique(return_inverse=True, return_counts=True)
    del found
    last = counts.cumsum(0).double()
    return (last - (counts.double() - 1) / 2)[inverse]


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation of two tensors (N,); NaN where one of them is constant. What overflowed ranks last."""
    ra, rb = (ranks(values.double().nan_to_num(nan=math.inf, posinf=math.inf)) for values in (a, b))
    ra, rb = ra - ra.mean(), rb - rb.mean()
    size = ra.norm() * rb.norm()
    return float(ra @ rb / size) if float(size) > 0 else math.nan


@dataclass(frozen=True, eq=False)
class Scene:
    """What a collector looks at: a model in eval mode with frozen parameters, examples, and a threat.

    x (N, C, H, W) in [0, 1], y (N,), N >= 1, both on the model's device and in its number format.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    classes: int
    seed: int = 0
    batch: int = 256
    """Examples whose forward pass, with all that its backward pass needs, may be in memory at once."""
    attack: Attack = field(default_factory=PGD)
    """What makes the adversarial examples that all collectors share."""
    say: Callable[[str], None] = field(default=lambda _line: None)
    whole: Scene | None = None
    """The scene of which this one has the first examples."""
    known: dict[Any, Any] = field(default_factory=dict[Any, Any])
    """What one collector found and another one would find again, by all that it depends on."""

    def noise(self, name: str, rows: Tensor) -> BlockNoise:
        """The stream `name` for the examples in `rows` (B,): numbers belong to examples, whatever the batch."""
        return BlockNoise(self.x.device, derive(self.seed, name), len((self.whole or self).x), rows)

    def map(self, work: Callable[[Tensor], Mapping[str, Tensor]], cost: float = 1) -> dict[str, Tensor]:
        """`work` on the places (B,) of the examples, batch by batch; its tensors (B, ...) are joined to (N, ...).

        `cost`: what an example takes of memory, in forward passes. Batches shrink when memory is short.
        """
        found: list[Mapping[str, Tensor]] = []
        size = Size(max(1, int(self.batch / cost)), self.say)
        size.each(torch.arange(len(self.x), device=self.x.device), lambda rows: found.append(work(rows)))
        return {name: torch.cat([part[name] for part in found]) for name in found[0]}

    @cached_property
    def adversarial(self) -> Tensor:
        """The attack's candidates for all examples, (N, C, H, W). Made once. Raises NotApplicable.

        Those of the first examples are the whole scene's, and are made there only if somebody asks for all.
        """
        if self.whole is not None and "adversarial" in vars(self.whole):
            return self.whole.adversarial[: len(self.x)]
        self.needs_gradient()

        def work(rows: Tensor) -> dict[str, Tensor]:
            noise = self.noise("adversarial", rows)
            return {"x": self.attack.run(self.model, self.x[rows], self.y[rows], self.threat, noise).detach()}

        return self.map(work)["x"]

    def logits(self, x: Tensor) -> Tensor:
        """Of all images x (N, C, H, W), without a graph."""
        with torch.no_grad():
            return self.map(lambda rows: {"logits": self.model(x[rows])})["logits"]

    @property
    def both(self) -> dict[str, Tensor]:
        """The images under the names that measures begin with."""
        return {"clean": self.x, "adversarial": self.adversarial}

    def only(self, count: int | None) -> Scene:
        """The first `count` of the examples; all of them for None or where there are fewer."""
        if count is None or count >= len(self.x):
            return self
        return replace(self, x=self.x[:count], y=self.y[:count], whole=self, known={})

    def needs_gradient(self) -> None:
        """Raises NotApplicable with the reason if no gradient reaches the pixels."""
        x = self.x[:1].detach().requires_grad_()
        try:
            with torch.enable_grad():
                torch.autograd.grad(self.model(x).sum(), x)
        except RuntimeError as error:
            raise refusal(error, "has no input gradient") from None

    def parameters(self) -> dict[str, Tensor]:
        """The model's parameters by name, as new leaves that require a gradient; the model's own stay frozen.

        Raises NotApplicable where there are none.
        """
        found = {
            name: value.detach().clone().requires_grad_()
            for name, value in self.model.named_parameters()
            if value.is_floating_point()
        }
        if not found:
            raise NotApplicable("the model has no weights")
        return found

    def with_parameters(self, parameters: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Logits of x (B, C, H, W) under other parameters."""
        return functional_call(self.model, dict(parameters), (x,))


def refusal(error: RuntimeError, what: str) -> Exception:
    """NotApplicable with the reason if autograd said that something has no derivative; otherwise the error itself."""
    said = str(error)
    if not any(word in said for word in ("differentia", "derivative", "does not require grad")):
        return error
    return NotApplicable(f"the model {what} ({said.strip().splitlines()[0].split('. ')[0]})")


class Collector(Part):
    """Base of all collectors. A subclass sets `name`, `about` and `paper`, its own fields, and writes `collect`."""

    about: ClassVar[str]
    """One sentence of meaning."""
    paper: ClassVar[str]
    along_only: ClassVar[bool] = False
    """Whether it watches the steps of a training, and has nothing to say of a model that is there already."""

    examples: int | None = Field(default=None, ge=1)
    """The first so many of the examples; by default all."""
    every: int | None = Field(default=None, ge=1)
    """Look during training too, after every so many epochs and the last one; by default only afterwards."""

    def plain(self) -> dict[str, Any]:
        """Its fields; an `every` that is not asked for is not spoken of, in old records and in new ones alike."""
        return {name: value for name, value in super().plain().items() if name != "every" or value is not None}

    def passes(self, classes: int) -> float:
        """Passes that an example takes, forward and backward together, beside the adversarial one that all share.

        About, for a plan that no record tells better. By default those of two looks with their slopes, at the clean and
        at the adversarial image.
        """
        del classes
        return 4

    def collect(self, scene: Scene) -> Measures:
        """The quantity on all of the scene's examples, of which `advbench.collect` has taken the first `examples`.

        Raises NotApplicable with the reason. A result depends on the examples, not on how they are batched: random
        numbers come from `scene.noise`, by an example's place, or from `scene.seed`.
        """
        raise NotImplementedError
