"""Networks of equal size, what counts as a small weight; and its claims fail when the experiment is spoilt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from advbench.find import build
from advbench.spec import BadInput
from advbench.studies.architecture import Architecture
from advbench.task import Data

from small_studies import claims_of, setting_of  # isort: skip

FEW = Data(name="digits", train=200)
SMALL: dict[str, Any] = {"parameters": 3_000, "epochs": 6, "batch": 32, "judged": 200}


@pytest.mark.parametrize("parameters", [3_000, 10_000, 1_000_000])
@pytest.mark.parametrize(("shape", "classes"), [((1, 8, 8), 10), ((3, 32, 32), 10)])
def test_every_shape_is_built_with_the_parameters_that_are_asked_for(parameters: int, shape: Any, classes: int):
    study = Architecture(parameters=parameters)
    for name, made in study.shapes().items():
        width = study.width(name, shape, classes)
        with torch.device("meta"):
            sizes = [sum(w.numel() for w in made(max(1, width + by), shape, classes).parameters()) for by in (-1, 0, 1)]
        # No other width is nearer.
        assert min(sizes, key=lambda size: abs(size - parameters)) == sizes[1]


def test_they_answer_and_deep_ones_are_deep():
    study, x = Architecture(parameters=3_000), torch.rand(2, 1, 8, 8)
    depths = {}
    for name, made in study.shapes().items():
        network = made(study.width(name, (1, 8, 8), 10), (1, 8, 8), 10)
        assert network(x).shape == (2, 10)
        depths[name] = sum(isinstance(layer, nn.Linear | nn.Conv2d) for layer in network)

    assert depths == {
        "wide perceptron": 2,
        "deep perceptron": 5,
        "wide convnet": 3,
        "deep convnet": 6,
        "5x5 convnet": 3,
        "batch-norm convnet": 3,
    }


def test_first_weights_keep_the_size_of_what_passes_through():
    torch.manual_seed(0)
    study = Architecture()
    network = study.shapes()["deep perceptron"](400, (1, 20, 20), 10)
    study.begin(network)
    x = torch.randn(200, 1, 20, 20)

    before_last = network[:-1](x).detach()

    assert float(before_last.square().mean()) == pytest.approx(1, rel=0.25)


def test_a_weight_is_small_beside_its_own_layer():
    """Of Gaussian weights 8 %, whatever their scale; of a half that is zero, a half and a little more."""
    torch.manual_seed(0)
    study, layers = Architecture(), [nn.Linear(300, 300), nn.Linear(300, 300)]
    for layer, scale in zip(layers, (1e-3, 1e3), strict=True):
        nn.init.normal_(layer.weight, std=scale)
    gaussian = study.sparsity(nn.Sequential(*layers))
    with torch.no_grad():
        for layer in layers:
            layer.weight[:150] = 0
    halved = study.sparsity(nn.Sequential(*layers))

    share = torch.erf(torch.tensor(0.1 / 2**0.5)).item()
    rest = torch.erf(torch.tensor(0.1 * 0.5**0.5 / 2**0.5)).item()
    assert gaussian == pytest.approx(share, abs=0.003)
    assert halved == pytest.approx(0.5 + rest / 2, abs=0.003)


def test_every_number_that_is_claimed_is_measured_and_idle_networks_are_remarked_on():
    found = Architecture(parameters=1_000, epochs=3, judged=20).run(
        setting_of(Architecture, data=Data(name="digits", train=64))
    )

    assert {claim.name for claim in Architecture.claims} <= found.values.keys()
    assert len(found.arrays) == 7
    assert {len(values) for values in found.arrays.values()} == {3}
    assert any("learned nothing" in note for note in found.notes)


class OneWidth(Architecture):
    """Every network of width 8, judged on test images alone."""

    def width(self, name, shape, classes):
        return 8

    def robust(self, model, data, threat, seed):
        return super().robust(model, self.test, threat, seed)

    @property
    def test(self):
        return setting_of(Architecture, data=FEW).data.test


class Noise(Architecture):
    """Accuracies and sparsities that know nothing of the network."""

    def robust(self, model, data, threat, seed):
        return float(torch.rand(()))

    def sparsity(self, model):
        return float(torch.rand(()))


class Turned(Architecture):
    """The deep networks under the name of the wide ones."""

    def shapes(self):
        made = super().shapes()
        turned = {name.replace("wide", "?").replace("deep", "wide").replace("?", "deep"): f for name, f in made.items()}
        return {name: turned[name] for name in made}


@pytest.mark.slow
def test_one_width_for_all_and_a_gap_without_training_images_fail():
    held = claims_of(OneWidth(**SMALL), data=FEW)

    assert held["unmatched"] == "does not hold"
    assert held["convolution_gain"] == "does not hold"
    assert held["sparsity_correlation"] != "holds"


def test_noise_fails():
    held = claims_of(Noise(parameters=3_000, epochs=3), seeds=8, data=Data(name="digits", train=32))

    assert held["order_repeats"] == "does not hold"
    assert held["sparsity_correlation"] == "does not hold"
    assert held["unmatched"] == "holds"


@pytest.mark.slow
def test_deep_ones_under_the_name_of_wide_ones_fail():
    assert claims_of(Turned(**SMALL), seeds=3, data=FEW)["width_gain"] == "does not hold"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parameters": 0}, "parameters"),
        ({"epochs": 0}, "epochs"),
        ({"judged": 0}, "judged"),
        ({"norm": "L0"}, "norm"),
    ],
)
def test_sizes_of_zero_and_unknown_norms_are_refused(fields: dict[str, object], said: str):
    with pytest.raises(BadInput, match=said) as told:
        build(Architecture, fields, "study")

    assert len(told.value.lines) == 1
