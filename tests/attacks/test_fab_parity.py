"""Does FAB go where the authors' package goes, and break what it breaks?"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peers import NORMS, fell, gradient_points, noise, smooth
from pyautoattack.fab_pt import FABAttack_PT
from torch import nn

from advbench.attacks.fab import FAB
from advbench.threat import Threat

THREATS = [Threat("Linf", 0.09), Threat("L2", 0.45), Threat("L1", 1.2)]
"""Radii at which some of the digits fall and some do not."""


def package(model: nn.Module, threat: Threat, **how: Any) -> FABAttack_PT:
    settings: dict[str, Any] = {
        "targeted": True,
        "n_restarts": 1,
        "n_target_classes": 9,
        "seed": 0,
        "device": "cpu",
        **how,
    }
    return FABAttack_PT(model, norm=threat.norm, eps=threat.eps, **settings)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_the_iterates_are_the_packages(norm, targeted):
    model, x = smooth(5), torch.rand(40, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    x = torch.where(x < 0.3, 0.0, x)
    y, tiny = model(x).argmax(1), Threat(norm, 1e-6)
    how = FAB(steps=15, targets=1 if targeted else 0)
    theirs = package(model, tiny, n_iter=15, targeted=targeted, n_target_classes=1)

    ours = gradient_points(model, lambda: how.run(model, x, y, tiny, noise(40)))
    reference = gradient_points(model, lambda: theirs.perturb(x, y))

    assert len(ours) == len(reference) == 15
    assert (ours[-1] - x).abs().amax() > 0.01
    torch.testing.assert_close(torch.stack(ours), torch.stack(reference), rtol=0, atol=2e-4)


@pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.norm)
def test_the_targeted_verdicts_are_the_packages(digits_cnn, digits_test, threat):
    """No number is drawn, so examples fall or stand alike; rounding decides for those on the verge."""
    model, x, y = digits_cnn.eval().requires_grad_(False), digits_test.pixels(slice(0, 30)), digits_test.labels[:30]

    ours = FAB(steps=20).run(model, x, y, threat, noise(30))
    theirs = package(model, threat, n_iter=20).perturb(x, y)

    broken, reference = fell(model, ours, x, y, threat), fell(model, theirs, x, y, threat)
    assert 6 < reference.sum() < 26
    assert (broken != reference).sum() <= 1


def test_the_untargeted_verdicts_follow_the_packages_law(digits_cnn, digits_test):
    """Two steps from each of three starts, of which two are drawn: how many fall depends on the seed, alike in both.

    The mean of eight counts has a standard error of s / sqrt(8); two means of one law differ by more than four of the
    joint standard errors once in 16,000 times (by the normal law; the floor is for counts that never vary).
    """
    model, x, y = digits_cnn.eval().requires_grad_(False), digits_test.pixels(slice(0, 60)), digits_test.labels[:60]
    threat, ours, theirs = Threat("L2", 0.5), [], []
    for seed in range(8):
        x_adv = FAB(targets=0, steps=2, starts=3).run(model, x, y, threat, noise(60, seed=seed))
        ours.append(fell(model, x_adv, x, y, threat))
        attack = package(model, threat, targeted=False, n_restarts=3, n_iter=2, seed=seed)
        theirs.append(fell(model, attack.perturb(x, y), x, y, threat))

    a, b = (torch.stack(found).sum(1).double() for found in (ours, theirs))
    error = ((a.var() + b.var()) / 8).sqrt().clamp_min(0.25)
    assert 15 < b.mean() < 57
    assert (a - b).mean().abs() <= 4 * error
    # What always falls there falls here at least once, and the other way round.
    assert not (torch.stack(theirs).all(0) & ~torch.stack(ours).any(0)).any()
    assert not (torch.stack(ours).all(0) & ~torch.stack(theirs).any(0)).any()
