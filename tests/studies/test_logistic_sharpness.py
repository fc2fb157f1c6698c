"""Its formulas against autograd and closed forms; and its claims fail when the experiment is spoilt."""

from __future__ import annotations

import pytest
import torch

from advbench.data.digits import Digits
from advbench.findings import Claim
from advbench.spec import BadInput
from advbench.stats.claims import judged
from advbench.studies.logistic_sharpness import LogisticSharpness, adversarial_loss
from advbench.study import Setting

from small_studies import claims_of, setting_of  # isort: skip


@pytest.fixture(scope="module")
def setting() -> Setting:
    return setting_of(LogisticSharpness, seed=0)


def test_the_closed_form_is_the_worst_of_the_ball():
    """Projected ascent in x finds the loss that -eps y w / |w| has, and nothing above it."""
    torch.manual_seed(0)
    x, w = torch.randn(6, 5, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    y = torch.tensor([1.0, -1, 1, 1, -1, -1], dtype=torch.float64)
    eps = 0.3

    d = torch.randn(20, 6, 5, dtype=torch.float64)
    d = eps * d / d.norm(dim=2, keepdim=True)
    for _ in range(200):
        d = d - 0.1 * y[:, None] * w
        d = d * (eps / d.norm(dim=2, keepdim=True)).clamp(max=1)
    reached = torch.nn.functional.softplus(-y * ((x + d) @ w)).mean(1)

    assert torch.allclose(reached, adversarial_loss(w, x, y, eps).expand(20), rtol=1e-9)


def test_the_minimum_is_one(setting: Setting):
    study = LogisticSharpness()
    x, y = study._draw(setting)

    w = study.minimum(x, y, 0.4).requires_grad_()

    loss = adversarial_loss(w, x, y, 0.4) + study.ridge / 2 * w @ w
    assert float(torch.autograd.grad(loss, w)[0].norm()) < 1e-8


def test_every_number_that_is_claimed_is_measured(setting: Setting):
    found = LogisticSharpness(eps=(0.0, 0.2, 0.4), directions=3).run(setting)

    assert {claim.name for claim in LogisticSharpness.claims} <= found.values.keys()
    assert {len(values) for values in found.arrays.values()} == {3}


class CleanHessian(LogisticSharpness):
    """The usual mistake: the curvature of the clean loss under the name of the adversarial one."""

    def minimum(self, x, y, eps):
        # With the true curvature, as ever: with a wrong one the search takes a hundred times as many steps.
        return LogisticSharpness(ridge=self.ridge).minimum(x, y, eps)

    def hessian(self, w, x, y, eps):
        del eps
        return super().hessian(w, x, y, 0.0)


class LooseRadius(LogisticSharpness):
    """An attack that does not grow with the radius that is asked for."""

    def minimum(self, x, y, eps):
        return super().minimum(x, y, 0.4 + 0.0 * eps)

    def hessian(self, w, x, y, eps):
        return super().hessian(w, x, y, 0.4 if eps else 0.0)


def test_the_clean_loss_in_the_place_of_the_adversarial_one_fails():
    held = claims_of(CleanHessian(directions=3), seeds=4)

    assert held["hessian_error"] == "does not hold"
    assert held["sharpness_step"] == "does not hold"
    assert held["slope_from_one"] == "does not hold"


def test_one_radius_in_the_place_of_all_fails():
    held = claims_of(LooseRadius(directions=3))

    assert held["sharpness_step"] == "does not hold"


def test_ten_classes_are_refused():
    with pytest.raises(BadInput, match="two classes"):
        LogisticSharpness().fit(Digits().load(None))  # type: ignore[arg-type]


def test_claims_are_of_sentences_with_sources():
    for claim in LogisticSharpness.claims:
        assert isinstance(claim, Claim)
        assert claim.statement.endswith(".")
        assert judged(claim, []).verdict == "undecided"
