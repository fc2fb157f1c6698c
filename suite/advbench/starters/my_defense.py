"""A defense: the class is its hyper-parameters, and `loss` is what training descends. Change what you like."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from advbench.attacks.pgd import ascend
from advbench.defense import Defense, TrainState


class MyDefense(Defense):
    """The loss on images that a few steps of ascent have made worse."""

    name = "my-defense"
    paper = "none yet"

    # A field is a hyper-parameter: task files may set it, what is not declared is refused, records keep its value.
    steps: int = Field(default=10, ge=1)
    """Ascent steps, each of eps/4."""

    def passes(self) -> tuple[float, float]:
        """What a training example costs: each step goes forward and back to the pixels, the update once more."""
        return self.steps + 1, self.steps + 1

    def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
        # The ball is the task's, and its radius may grow in the first epochs: never write an eps of your own.
        threat = state.threat
        # All random numbers come from the state, so that a run which was killed goes on as if it had not been.
        start = threat.random_start(x, state.noise)
        # It differentiates to the pixels alone: no parameter has a gradient before the training step asks for it.
        x_adv = ascend(state.model, x, y, threat, start=start, steps=self.steps, step_size=threat.eps / 4)
        return state.cross_entropy(state.model(x_adv), y)
