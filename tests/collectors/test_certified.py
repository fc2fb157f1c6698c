"""What is certified is proven: no attack breaks it, and where the truth is known it is all of the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import crown, find, train
from advbench.attacks.autoattack_fast import AutoAttackFast, FastPart
from advbench.attacks.pgd import PGD
from advbench.collectors.base import NotApplicable, Scene
from advbench.collectors.certified import Certified
from advbench.data.base import DataSet, Examples
from advbench.data.subsets import choose
from advbench.ledger import STANDING
from advbench.losses import margin
from advbench.models.linear import Linear
from advbench.models.mlp import Mlp
from advbench.task import Data
from advbench.threat import Norm, Threat


@pytest.fixture(scope="module")
def ibp(digits: DataSet, make_job: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A small network after seconds of IBP at Linf 0.1."""
    made = find.build(find.defense(find.shipped("baselines") / "ibp.py"), {"warmup": 0.2, "ramp": 0.6})
    job = make_job(threat={"eps": "1/10"}, training={"epochs": 15, "batch": 64, "lr": 0.1})
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = Mlp(hidden=(64, 32)).build((1, 8, 8), 10)
    subsets = choose(digits, Data(name="digits"), "cpu")
    train.train(job, subsets, made, model, tmp_path_factory.mktemp("ibp") / "c.pt", lambda *_: None)
    return model.eval().requires_grad_(False)


def scene_of(model: nn.Module, data: Examples, count: int, threat: Threat) -> Scene:
    return Scene(model, data.pixels(slice(0, count)), data.labels[:count], threat, 10)


def ladder() -> list[Any]:
    """PGD and AutoAttack, with a twenty-fifth of Square's queries."""
    parts = [part for part in AutoAttackFast().parts(10) if isinstance(part, FastPart)]
    return [PGD(steps=40), *(part.model_copy(update={"queries": 200}) for part in parts)]


@pytest.mark.slow
def test_nothing_that_autoattack_breaks_is_certified_and_much_is_after_ibp(ibp, digits_test, judged):
    count, threat = 120, Threat("Linf", 0.1)
    data = Examples(digits_test.stored[:count], digits_test.labels[:count], digits_test.index[:count], digits_test.peak)
    ledger = judged(ibp, data, ladder(), threat, curve=[], alone=0).ledger

    found = Certified().collect(scene_of(ibp, data, count, threat))

    proven, robust = found.arrays["margin"] > 0, ledger.broken_by == STANDING
    assert not (proven & ~robust).any()
    value = {name: measure.value or 0.0 for name, measure in found.values.items()}
    assert 0.3 < value["certified_interval"] <= value["certified"] <= robust.double().mean() <= value["attacked"] + 0.02
    assert value["certified"] == pytest.approx(proven.double().mean().item())
    assert (found.arrays["margin"] >= found.arrays["interval_margin"]).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_nor_is_it_of_a_model_that_is_not_robust(digits_cnn, digits_test, judged, norm: Norm):
    count, threat = 8, Threat(norm, {"Linf": 0.03, "L2": 0.15}[norm])
    data = Examples(digits_test.stored[:count], digits_test.labels[:count], digits_test.index[:count], digits_test.peak)
    ledger = judged(digits_cnn, data, [PGD(steps=40)], threat, curve=[], alone=0).ledger
    model, x, y = digits_cnn.double().eval().requires_grad_(False), data.pixels(slice(None)).double(), data.labels

    margins = margin(crown.worst_case(model, x, y, threat), y)  # of the broken ones too, which the collector leaves out

    assert 0 < (margins > 0).double().mean() < 1
    assert not ((margins > 0) & (ledger.broken_by != STANDING)).any()


def test_crown_proves_what_intervals_do_not_and_without_it_they_stand_alone(digits_cnn, digits_test):
    scene = scene_of(digits_cnn.eval().requires_grad_(False), digits_test, 8, Threat("Linf", 0.02))

    both, alone = (Certified(crown=crown).collect(scene) for crown in (True, False))

    value = {name: measure.value or 0.0 for name, measure in both.values.items()}
    assert value["certified_interval"] < value["certified"] <= value["attacked"]
    assert alone.values["certified"].value == value["certified_interval"]
    assert alone.values["certified"].meaning.endswith("by interval bounds")
    assert both.values["certified"].meaning.endswith("by interval bounds or CROWN")
    assert torch.equal(alone.arrays["margin"], alone.arrays["interval_margin"])


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_of_a_linear_model_all_that_is_robust_is_certified(norm: Norm):
    torch.manual_seed(0)
    model: Any = Linear().build((1, 4, 4), 2).requires_grad_(False)
    x, eps = torch.rand(60, 1, 4, 4), {"Linf": 0.02, "L2": 0.1, "L1": 0.3}[norm]
    with torch.no_grad():
        model[1].bias -= model(x).median(0).values  # half of the examples on either side
    y, slope = model(x).argmax(1), model[1].weight[1] - model[1].weight[0]
    threat = Threat(norm, eps)

    found = Certified().collect(Scene(model, x, y, threat, 2))

    way = (slope * (1 - 2.0 * y)[:, None]).view_as(x).double()
    worst = model.double()(threat.farthest(x.double(), way))
    truth = worst.gather(1, y[:, None]).squeeze(1) - worst.gather(1, 1 - y[:, None]).squeeze(1)
    assert 0 < (truth > 0).double().mean() < 1
    assert ((found.arrays["margin"] > 0) == (truth > 0)).all()
    # The ball is a little larger than eps, so that a candidate which the ledger's tolerance lets pass is in it.
    assert (found.arrays["margin"] < truth).all()
    crowned = (truth > 0) & (found.arrays["interval_margin"] <= 0)
    assert crowned.any() == (norm != "Linf")
    torch.testing.assert_close(found.arrays["margin"][crowned], truth[crowned], rtol=0, atol=1e-4)
    if norm == "Linf":
        torch.testing.assert_close(found.arrays["interval_margin"], truth, rtol=0, atol=1e-4)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_ball_is_the_one_in_which_the_ledger_accepts_a_candidate(norm: Norm):
    """eps, its tolerance of 1e-6 + 1e-5 eps, and in L1 2^-25 for each of 16 pixels: exact where the box is far."""
    torch.manual_seed(0)
    model: Any = Linear().build((1, 4, 4), 2).requires_grad_(False)
    x, eps = 0.4 + 0.2 * torch.rand(60, 1, 4, 4), {"Linf": 0.01, "L2": 0.03, "L1": 0.1}[norm]
    with torch.no_grad():
        model[1].bias -= model(x).median(0).values
    y = model(x).argmax(1)

    found = Certified().collect(Scene(model, x, y, Threat(norm, eps), 2))

    model.double()
    clean = margin(model(x.double()), y)
    slope = model[1].weight[1] - model[1].weight[0]
    radius = eps + 1e-6 + 1e-5 * eps + (16 * 2**-25 if norm == "L1" else 0)
    intervals, proven = clean - radius * slope.abs().sum(), clean - radius * Threat(norm, 1).dual_norm(slope[None])
    standing = found.values["attacked"].value or 0
    torch.testing.assert_close(found.arrays["interval_margin"], intervals, rtol=0, atol=1e-12)
    asked = int(found.notes[0].rpartition(" ")[2])
    assert found.notes == (f"60 examples, eps {eps:g}, float64; CROWN was asked of {asked}",)
    assert asked == round(60 * standing) - int((intervals > 0).sum())
    crowned = found.arrays["margin"] != found.arrays["interval_margin"]
    assert norm == "Linf" or 3 <= crowned.sum() <= asked
    torch.testing.assert_close(found.arrays["margin"][crowned], proven[crowned], rtol=0, atol=1e-12)
    shares = (float((found.arrays[name] > 0).double().mean()) for name in ("margin", "interval_margin"))
    assert tuple(found.values[name].value for name in ("certified", "certified_interval")) == tuple(shares)


def test_where_no_attack_can_be_the_right_ones_are_the_upper_bound(monkeypatch: pytest.MonkeyPatch):
    def refuse(scene: Scene) -> None:
        raise NotApplicable("it has none")

    monkeypatch.setattr(Scene, "needs_gradient", refuse)
    model, x = Linear().build((1, 2, 2), 3).requires_grad_(False), torch.rand(8, 1, 2, 2)
    y = torch.where(torch.arange(8) < 5, model(x).argmax(1), (model(x).argmax(1) + 1) % 3)

    found = Certified().collect(Scene(model, x, y, Threat("Linf", 0.01), 3))

    assert found.values["attacked"].value == 5 / 8
    assert found.notes[1:] == ("attacked: no attack: it has none",)


def test_a_network_without_a_relu_has_interval_bounds_alone(digits_test: Examples):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softplus(), nn.Linear(8, 10)).requires_grad_(False)
    x = digits_test.pixels(slice(0, 20))
    scene = Scene(model, x, model(x).argmax(1), Threat("Linf", 0.01), 10)

    found = Certified().collect(scene)

    assert 0 < (found.values["certified_interval"].value or 0) < (found.values["attacked"].value or 0)
    assert "interval bounds alone: CROWN: a Softplus is neither a ReLU nor affine" in found.notes
    assert found.values["certified"].value == found.values["certified_interval"].value


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def test_a_layer_that_is_not_known_is_the_reason_for_nothing(digits_test: Examples):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Halved()).requires_grad_(False)

    with pytest.raises(NotApplicable, match="interval bounds: layer 2 is a Halved, which they do not know"):
        Certified().collect(scene_of(model, digits_test, 5, Threat("Linf", 0.1)))


def test_the_model_stays_in_its_own_format(digits_cnn: nn.Module, digits_test: Examples):
    before = {name: value.clone() for name, value in digits_cnn.state_dict().items()}

    Certified().collect(scene_of(digits_cnn.eval().requires_grad_(False), digits_test, 2, Threat("Linf", 0.03)))

    assert all(value.dtype == torch.float32 for value in digits_cnn.parameters())
    assert all(torch.equal(before[name], value) for name, value in digits_cnn.state_dict().items())
