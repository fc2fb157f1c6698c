"""A device whose memory runs out: smaller batches, each size said once, and the same verdicts."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from advbench.attacks.apgd import APGD
from advbench.attacks.autoattack import PARTS, AutoAttack
from advbench.attacks.autoattack_fast import FastPart
from advbench.attacks.base import Attack
from advbench.attacks.fab import FAB
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import Examples
from advbench.threat import Threat

LINF = Threat("Linf", 0.05)


class Short(FastPart):
    """One of the four with a tenth of its iterations: what fits into memory does not depend on them."""

    @property
    def attack(self) -> Attack:
        whole = super().attack
        return whole.model_copy(update={"steps": 10}) if isinstance(whole, (APGD, FAB)) else whole


QUERIES = 20
"""Of Square's 5,000."""
FAST = [Short(part=part, classes=10, queries=QUERIES) for part in PARTS]
LADDERS = {"fgsm": [FGSM()], "pgd": [PGD(steps=5)], "autoattack-fast": FAST}


class Small(nn.Module):
    """A device that has memory for `most` images at a time."""

    tried: ClassVar[list[int]] = []

    def __init__(self, inner: nn.Module, most: int) -> None:
        super().__init__()
        self.inner, self.most = inner, most

    def forward(self, x: Tensor) -> Tensor:
        Small.tried.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError
        return self.inner(x)


@pytest.fixture(autouse=True)
def _a_short_look(monkeypatch):
    """The look at the model before the attacks finds out for itself what fits, and says nothing."""
    monkeypatch.setattr("advbench.evaluate.LOOK", 3)


@pytest.fixture
def few(digits_test: Examples) -> Examples:
    return Examples(digits_test.stored[:40], digits_test.labels[:40], digits_test.index[:40], digits_test.peak)


@pytest.mark.parametrize("ladder", LADDERS)
def test_batches_shrink_for_good_and_verdicts_stay(judged, digits_cnn: nn.Module, few: Examples, ladder: str):
    whole = judged(digits_cnn, few, LADDERS[ladder], LINF, curve=[])
    Small.tried.clear()
    news: list[str] = []
    small = Small(digits_cnn, 13)
    found = judged(small, few, LADDERS[ladder], LINF, curve=[], batch=40, tell=lambda *said: news.append(said[3]))

    said = [words for words in news if "memory" in words]
    assert said == [f"out of device memory: going on with {size} examples at a time" for size in (20, 10)]
    # An example's targets and starts go side by side; where they do not fit, the attack itself goes on with fewer.
    if ladder != "autoattack-fast":
        assert len([n for n in Small.tried if n > 13]) == len(said), "what did not fit is not tried again"
    assert 0 < found.scores.robust.accuracy < found.scores.clean.accuracy
    assert torch.equal(found.ledger.broken_by, whole.ledger.broken_by)
    assert found.scores == whole.scores


def test_memory_for_fewer_images_than_an_attack_takes_for_one_example_is_enough(judged, digits_cnn, few):
    few = Examples(few.stored[:10], few.labels[:10], few.index[:10], few.peak)
    whole = judged(digits_cnn, few, LADDERS["autoattack-fast"], LINF, curve=[])

    found = judged(Small(digits_cnn, 3), few, LADDERS["autoattack-fast"], LINF, curve=[], batch=3)

    assert torch.equal(found.ledger.broken_by, whole.ledger.broken_by)
    assert found.scores == whole.scores


def test_a_block_that_the_package_cannot_hold_says_what_to_change(judged, digits_cnn: nn.Module, few: Examples):
    small = Small(digits_cnn, 20)
    with pytest.raises(
        torch.OutOfMemoryError, match=r"examples, which this attack takes in one batch; lower evaluation"
    ):
        judged(small, few, AutoAttack().parts(10), LINF, curve=[], batch=20)
