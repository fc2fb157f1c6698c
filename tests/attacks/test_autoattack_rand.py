"""The rand version: the package's numbers, and a verdict that one lucky answer does not decide."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack as Package
from torch import Tensor, nn

from advbench.attacks.apgd import APGD
from advbench.attacks.autoattack_rand import AutoAttackRand
from advbench.data.base import Examples
from advbench.threat import Threat


def test_the_numbers_are_those_of_the_package_s_rand_version():
    theirs = Package(nn.Identity(), norm="Linf", eps=0.1, version="rand", device="cpu")
    ours: list[Any] = list(AutoAttackRand().parts(10))

    assert [f"apgd-{part.loss}" for part in ours] == theirs.attacks_to_run
    for part in ours:
        assert isinstance(part, APGD)
        assert (part.steps, part.rho, part.runs, part.eot) == (
            theirs.apgd.n_iter,
            theirs.apgd.thr_decr,
            theirs.apgd.n_restarts,
            theirs.apgd.eot_iter,
        )


def test_below_three_classes_cross_entropy_alone_names_the_protocol():
    assert [part.key for part in AutoAttackRand().parts(2)] == ["apgd-ce-eot"]
    assert AutoAttackRand().protocol(2) == "apgd-ce-eot"
    assert [part.key for part in AutoAttackRand().parts(3)] == ["apgd-ce-eot", "apgd-dlr-eot"]
    assert AutoAttackRand().protocol(3) == "autoattack-rand"


class Resized(nn.Module):
    """Answers for a randomly shifted, noisy image, as randomised defenses do."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.draws = inside, torch.Generator().manual_seed(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x + 0.1 * torch.randn(x.shape, generator=self.draws))


@pytest.mark.parametrize("eps", [0.001, 0.3])
def test_the_ladder_runs_its_parts_on_a_random_model(judged, digits_cnn, digits_test, eps):
    few = Examples(digits_test.stored[:20], digits_test.labels[:20], digits_test.index[:20], digits_test.peak)
    parts = [part.model_copy(update={"steps": 6, "eot": 5}) for part in AutoAttackRand().parts(10)]
    found = judged(Resized(digits_cnn), few, parts, Threat("Linf", eps), curve=[], alone=0)

    assert found.rungs == ("apgd-ce-eot", "apgd-dlr-eot")
    robust, clean = found.scores.robust.accuracy, found.scores.clean.accuracy
    assert robust < 0.3 * clean if eps == 0.3 else robust > 0.5 * clean
    # Whoever met a rung met all of it: 1 + 5 * 7 passes and one of the judge, after two clean ones.
    met = found.ledger.forward[found.ledger.broken_by != -2] - 2
    assert {int(n) % 37 for n in met} == {0}
