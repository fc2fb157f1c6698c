"""Its gradients against autograd and its attacks against the ball; and its claims fail when it is spoilt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from advbench.data.digits import Digits
from advbench.find import build
from advbench.spec import BadInput
from advbench.studies.attack_smoothness import AttackSmoothness
from advbench.studies.logistic_sharpness import LogisticSharpness, adversarial_loss
from advbench.study import Setting

from small_studies import claims_of, setting_of  # isort: skip

SMALL = {"ways": 3, "shortest": 1e-3, "longest": 2e-2, "coordinates": 2, "hidden": 16, "training": 20, "directions": 8}


@pytest.fixture(scope="module")
def setting() -> Setting:
    return setting_of(AttackSmoothness)


def drawn(*sizes: tuple[int, ...]) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(*size, dtype=torch.float64) for size in sizes]


def signs(count: int) -> torch.Tensor:
    return torch.arange(count).remainder(2).double() * 2 - 1


def test_the_linear_change_is_that_of_the_closed_form():
    """grad L by autograd of softplus(-y w.x + eps |w|_q), at both ends."""
    w, x, move = drawn((5,), (8, 5), (5,))
    y, study = signs(8), AttackSmoothness()

    def linf(at: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.softplus(-y * (x @ at) + study.linf * at.abs().sum()).mean()

    def l2(at: torch.Tensor) -> torch.Tensor:
        return adversarial_loss(at, x, y, study.l2)

    for norm, loss in (("Linf", linf), ("L2", l2)):
        ends = [torch.func.grad(loss)(at) for at in (w + move, w - move)]
        found = study._linear_change(w, move, x, y, norm)  # type: ignore[arg-type]
        assert torch.allclose(found, ends[0] - ends[1], rtol=1e-10)


def test_the_limit_in_l2_is_a_column_of_the_known_hessian():
    w, x = drawn((5,), (8, 5))
    y, study, unit = signs(8), AttackSmoothness(), torch.eye(5, dtype=torch.float64)[2]

    limit = study._limit(w, unit, x, y, "L2", 1e-3)

    column = LogisticSharpness().hessian(w, x, y, study.l2)[:, 2]
    assert float(limit) == pytest.approx(float(column.norm()), rel=1e-10)


def test_the_network_is_one_of_a_hidden_layer():
    study = AttackSmoothness(hidden=4)
    layers = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3)).double()
    theta = torch.nn.utils.parameters_to_vector(layers.parameters()).detach()
    (x,) = drawn((5, 6))

    assert torch.allclose(study.logits(theta, x), layers(x))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_attacks_end_on_the_edge_of_their_ball_and_raise_the_loss(setting: Setting, norm):
    study = AttackSmoothness.model_validate(SMALL)
    x, y = setting.data.train.pixels(slice(40)).flatten(1).double(), setting.data.train.labels[:40]
    theta = study.trained(x, y, setting)

    d = study.attack(theta, x, y, norm) - x

    sizes = d.abs().amax(1) if norm == "Linf" else d.norm(dim=1)
    assert torch.allclose(sizes, torch.full((40,), study.radius(norm)).double(), rtol=1e-9)
    before, after = (
        torch.nn.functional.cross_entropy(study.logits(theta, at), y, reduction="none") for at in (x, x + d)
    )
    assert (after > before).all()


@pytest.mark.slow
def test_its_claims_about_the_linear_model_hold_in_small():
    held = claims_of(AttackSmoothness.model_validate(SMALL), seeds=4)

    assert held["linf_slope_off"] == held["l2_slope_off"] == held["limit_error"] == "holds"
    assert held["network_contrast"] == "holds"


class Detached(AttackSmoothness):
    """The usual mistake: the attack is held while the weights move."""

    def seen(self, moved, unmoved):
        del moved
        return unmoved


class OneNorm(AttackSmoothness):
    """The signs of Linf in both norms."""

    def linear_attack(self, w, norm):
        del norm
        return super().linear_attack(w, "Linf")

    def attack(self, theta, x, y, norm):
        del norm
        return super().attack(theta, x, y, "Linf")


class Relu(AttackSmoothness):
    """Its own kinks are rough in any norm."""

    def logits(self, theta, x):
        inputs = x.shape[-1]
        outputs = (len(theta) - self.hidden * (inputs + 1)) // (self.hidden + 1)
        w, b, v, c = theta.split([self.hidden * inputs, self.hidden, outputs * self.hidden, outputs])
        return torch.relu(x @ w.view(self.hidden, inputs).T + b) @ v.view(outputs, self.hidden).T + c


def test_a_detached_attack_is_smooth_in_every_norm():
    held = claims_of(Detached.model_validate(SMALL))

    assert held["linf_slope_off"] == held["limit_error"] == held["network_contrast"] == "does not hold"


@pytest.mark.slow
def test_the_attack_of_the_wrong_norm_is_rough():
    held = claims_of(OneNorm.model_validate(SMALL), seeds=4)

    assert held["l2_slope_off"] == held["limit_error"] == "does not hold"
    assert held["network_contrast"] == held["network_l2_slope_off"] == "does not hold"


@pytest.mark.slow
def test_a_relu_network_is_rough_in_l2():
    assert claims_of(Relu.model_validate({**SMALL, "hidden": 64}), seeds=4)["network_l2_slope_off"] == "does not hold"


def test_one_class_is_refused():
    with pytest.raises(BadInput, match="two classes at least"):
        AttackSmoothness().fit(replace(Digits().load(None), classes=1))  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"ways": 0}, {"coordinates": 0}, {"linf": 0.0}, {"linf": 2.0}, {"norm": "L1"}])
def test_sizes_of_zero_and_other_norms_are_refused(fields: dict[str, object]):
    with pytest.raises(BadInput):
        build(AttackSmoothness, fields)
