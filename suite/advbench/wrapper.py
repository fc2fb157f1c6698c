"""A defense around another one: it takes that one's loss at other weights, and leaves the rest to it.

`[[defense]] name = "awp"`, `base = { name = "trades", beta = 6 }`: what the base trains on and with is its own affair;
where in the space of weights its gradient is taken is the wrapper's.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PlainSerializer, field_validator
from torch import Tensor, nn

from advbench.attacks.pgd import recording, replaying
from advbench.defense import Defense, TrainState
from advbench.load import own
from advbench.recipe import Training
from advbench.spec import BadInput
from advbench.task import shipped
from advbench.threat import Norm

USUAL = "pgd-at"
"""The base where a table has none."""


def _plain(base: Defense) -> dict[str, Any]:
    return {"name": base.name, **base.plain()}


def _usual() -> Defense:
    return own(Defense, shipped("baselines") / f"{USUAL.replace('-', '_')}.py")()


class Wrapper(Defense):
    """Base of those that own the step around another defense's loss. A subclass writes `step` and `passes`."""

    base: Annotated[Defense, PlainSerializer(_plain)] = Field(
        default_factory=_usual, json_schema_extra={"table": "base"}
    )
    """The defense inside: a table with its name or file, and its own fields. By default pgd-at."""

    repeatable = True

    @field_validator("base")
    @classmethod
    def _fits(cls, base: Defense) -> Defense:
        try:
            cls.fits(base)
        except BadInput as error:
            raise ValueError(str(error)) from None
        return base

    @classmethod
    def fits(cls, base: Defense) -> None:
        """Raises BadInput for a base whose step this one cannot own."""
        if type(base).step is not Defense.step:
            raise BadInput(f"{base.name} has a step of its own, and so has {cls.name}: only one can own the update")

    @property
    def norms(self) -> tuple[Norm, ...]:  # type: ignore[override]
        """Those of the base."""
        return self.base.norms

    @property
    def adversarial(self) -> bool:  # type: ignore[override]
        """As the base."""
        return self.base.adversarial

    def workers(self) -> int:
        return self.base.workers()

    def needs(self) -> tuple[Literal["unlabelled"], ...]:
        return self.base.needs()

    def prepare(self, state: TrainState) -> None:
        self.base.prepare(state)

    def optimizer(self, model: nn.Module, training: Training) -> torch.optim.Optimizer:
        return self.base.optimizer(model, training)


@dataclass
class Crafted:
    """The adversarial examples of one backward pass, for another one at other weights."""

    state: TrainState
    gradients: list[Tensor] = field(default_factory=list[Tensor])
    draws: Tensor | None = None

    @contextmanager
    def first(self) -> Generator[None]:
        """The block crafts them."""
        self.draws = self.state.noise.generator.get_state()
        with recording(self.gradients):
            yield

    @contextmanager
    def again(self) -> Generator[None]:
        """The block meets the same ones, and pays for no attack."""
        assert self.draws is not None
        self.state.noise.generator.set_state(self.draws)
        with replaying(self.gradients):
            yield


@contextmanager
def restored(tensors: Iterable[Tensor]) -> Generator[None]:
    """Each of them is behind the block what it was before, bit for bit, however the block ends."""
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, value in kept:
                tensor.copy_(value)


class Perturbed(Wrapper):
    """The update of the base's gradient at perturbed weights, on the examples that were crafted at the weights.

    A subclass writes `perturb`. A step costs one training pass of the base more (a base whose gradient goes through its
    attack, as fast-bat's does, makes that again), batch norm's running statistics are those of the weights themselves,
    and the history has `rise`: how much the perturbation adds to the loss, in nats.
    """

    def passes(self) -> tuple[float, float]:
        (forward, backward), again = self.base.passes(), self.base.weight_passes()
        return forward + again[0], backward + again[1]

    def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        crafted = Crafted(state)
        with crafted.first():
            flat = self.base.backward(state, x, y)
        with restored([*state.model.parameters(), *state.model.buffers()]):
            with torch.no_grad():
                self.perturb([weight for weight in state.model.parameters() if weight.grad is not None])
            with crafted.again():
                loss = self.base.backward(state, x, y)
        state.optimizer.step()
        state.report["rise"] = loss - flat
        return loss

    def perturb(self, weights: Sequence[Tensor]) -> None:
        """Move the weights, which hold the gradient of the base's loss in `.grad`."""
        raise NotImplementedError
