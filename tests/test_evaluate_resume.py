"""What was killed goes on as if it had not been: in later blocks, with models that draw numbers, after a stop."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.autoattack_fast import FastPart
from advbench.attacks.fgsm import FGSM
from advbench.data.base import Examples
from advbench.scores import Verdicts
from advbench.seeds import BlockNoise
from advbench.threat import Threat

LINF = Threat("Linf", 0.1)


def same(one: Verdicts, other: Verdicts) -> None:
    """In everything but seconds."""
    assert one.ledger.done == other.ledger.done
    for name in one.ledger.columns():
        assert torch.equal(getattr(one.ledger, name), getattr(other.ledger, name)), name
    assert one.scores == other.scores


@pytest.fixture(scope="module")
def few(digits_test: Examples) -> Examples:
    """120 digits, so that blocks of 50 end in a shorter one."""
    return Examples(digits_test.stored[:120], digits_test.labels[:120], digits_test.index[:120], digits_test.peak)


class Dear(FGSM):
    """A rung behind the cheap ones. Ends the process, so to speak, when it runs for the `lives`-th time."""

    label: str | None = "pgd"
    everywhere: ClassVar[bool] = False
    left: ClassVar[int] = 0

    def run(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        Dear.left -= 1
        if Dear.left < 0:
            raise KeyboardInterrupt
        return super().run(model, x, y, threat, noise)


@pytest.mark.parametrize("lives", [1, 2])
def test_what_was_killed_in_the_dear_rungs_of_a_later_block_goes_on(judged, digits_cnn, few, lives):
    """Then the journal has carried one block further than the next one."""
    ladder, doubts = [FGSM(), Dear()], []

    def doubt(found: Verdicts) -> tuple[str, ...]:
        doubts.append((found.ledger.done, found.scores.robust))
        return ()

    Dear.left = 99
    whole = judged(digits_cnn, few, ladder, LINF, block=50, alone=0)
    Dear.left = lives
    with pytest.raises(KeyboardInterrupt):
        judged(digits_cnn, few, ladder, LINF, folder="j", block=50, alone=0)
    Dear.left = 99
    same(judged(digits_cnn, few, ladder, LINF, folder="j", block=50, alone=0, doubt=doubt), whole)

    assert doubts == [(["clean", "fgsm"], None)]


class Noisy(nn.Module):
    """Adds noise to the image, of torch's stream or of numpy's."""

    def __init__(self, inner: nn.Module, *, by_numpy: bool) -> None:
        super().__init__()
        self.inner, self.by_numpy = inner, by_numpy

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.from_numpy(np.random.randn(*x.shape)).float() if self.by_numpy else torch.randn_like(x)
        return self.inner(x + 0.2 * noise)


@pytest.mark.parametrize("by_numpy", [False, True], ids=["torch", "numpy"])
def test_a_model_that_draws_numbers_draws_the_same_ones_after_a_stop(judged, digits_cnn, few, by_numpy):
    model = Noisy(digits_cnn, by_numpy=by_numpy)
    ladder = [FGSM(), Dear(), FastPart(part="square", classes=10, queries=20)]
    Dear.left = 99
    whole = judged(model, few, ladder, LINF, block=50, alone=0)
    Dear.left = 1
    with pytest.raises(KeyboardInterrupt):
        judged(model, few, ladder, LINF, folder="j", block=50, alone=0)
    Dear.left = 99
    same(judged(model, few, ladder, LINF, folder="j", block=50, alone=0), whole)


def test_modes_are_given_back_module_by_module(judged, digits_cnn, few):
    model = nn.Sequential(nn.Dropout(0.5), digits_cnn).train()
    model[0].eval()

    judged(model, few, [FGSM()], LINF, curve=[], alone=0)

    assert (model.training, model[0].training, model[1].training) == (True, False, True)


def test_a_journal_that_climbed_on_is_not_that_of_a_stop(judged, digits_cnn, few):
    Dear.left = 99
    ladder = [FGSM(), Dear(label="dear")]
    judged(digits_cnn, few, ladder, LINF, folder="j", stop=False, curve=[])

    stopped = judged(digits_cnn, few, ladder, LINF, folder="j", curve=[], doubt=lambda _: ("masked",))

    assert stopped.stopped == ("masked",)
    assert stopped.scores.robust is None
    assert set(stopped.broken_by) <= {None, "clean", "fgsm"}
