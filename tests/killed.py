"""A training whose process is killed, for tests of what comes after."""

from __future__ import annotations

from torch import Tensor

from advbench.defense import Defense, TrainState


class Stop(BaseException):
    """The process is killed: nothing on the way may catch it as an error."""


def killed(steps: int, kind: type[Defense]) -> Defense:
    """A defense whose process is killed at its step number `steps`."""
    taken = 0

    class Killed(kind):
        def step(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            nonlocal taken
            if taken == steps:
                raise Stop
            taken += 1
            return super().step(state, x, y)

    return Killed()
