"""What every collector owes to a plan: that it costs what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from fields import fields
from torch import Tensor, nn

from advbench import find
from advbench.attacks.pgd import PGD
from advbench.collectors.base import Collector, NotApplicable, Scene
from advbench.collectors.calibration import Calibration
from advbench.collectors.certified import Certified
from advbench.collectors.fosc import Fosc
from advbench.collectors.influence import Influence
from advbench.collectors.input_hessian import InputHessian
from advbench.collectors.input_spectrum import factor, products
from advbench.collectors.lanczos import density, lanczos, trace
from advbench.collectors.linearity import Linearity
from advbench.collectors.margins import Margins
from advbench.collectors.param_hessian import ParamHessian
from advbench.collectors.sharpness import Sharpness
from advbench.collectors.smoothness import Smoothness
from advbench.collectors.sparsity import Sparsity
from advbench.collectors.updates import Updates
from advbench.passes import counting
from advbench.threat import Threat

UNSEEN = {"certified", "influence", "param-hessian", "updates"}
"""What they do is no pass through the model as a whole, or not at a moment when a plan could ask."""


@pytest.mark.parametrize("name", sorted(set(find.names(find.PACKAGE / "collectors")) - UNSEEN))
def test_a_collector_costs_what_it_says(scene: Callable[..., Scene], name: str):
    seen = scene(20)
    assert seen.adversarial.shape == seen.x.shape  # made before: all collectors share them
    collector = find.part(Collector, name)()

    with counting(seen.model) as passes:
        collector.collect(seen)

    # One example more is what asks whether the model takes its input at all.
    assert (passes.forward + passes.backward) / 20 == pytest.approx(collector.passes(10), rel=0.03)


@pytest.mark.parametrize(
    ("collector", "expected"),
    [
        *((Calibration(), 2), (Sparsity(), 2), (Margins(), 4), (Linearity(), 6), (Updates(), 0)),
        # A gradient a step, and one more where the attack ends.
        (Fosc(steps=7), 2 * 8),
        (Certified(), 8 + 200 * 10),
        (Certified(crown=False), 8),
        # Clean and adversarial spectra of 11 passes; an ascent of 20 steps, an attack of 10, and the gates.
        (InputHessian(), 2 * 11 + 2 * 20 + 2 * 10 + 2),
        (InputHessian(step_size=0.1, strengths=(0.5, 3.0), steps=4), 2 * 11 + 2 * 30 + 2 * 4 + 2),
        # Clean and adversarial gradients at fifteen passes each, the confidence, and a spectrum.
        (Influence(), 2 * 15 + 1 + 11),
        # Products of four passes, for the top values and the trace: clean, fixed, and moving at twice that.
        (ParamHessian(), (4 * 5 + 8) * 4 * 4),
        (ParamHessian(steps=7, runs=3, probes=0), 3 * 7 * 4 * 4),
        # Base, slope at two, each radius, directions both ways; curve and surface; attacks made anew along the curve.
        (Sharpness(), 2 * (3 + 2 + 2 + 2 + 2 * 2 * 4 + 11 + 7**2) + 2 * 10 * 11),
        (Sharpness(curve="frozen", sam=(0.1,), asam=(), average=(0.1,), side=0), 2 * (3 + 1 + 0 + 2 + 2 * 4 + 11)),
        # At each of four sizes two ends: a clean slope, and two under attacks of ten steps.
        (Smoothness(), 4 * 2 * (2 + 2 * (2 * 10 + 2))),
    ],
    ids=str,
)
def test_what_a_plan_reckons_with_is_what_is_counted(collector: Collector, expected: int) -> None:
    assert collector.passes(10) == expected


FIELDS = """
collector.every null >= 1
collector.examples null >= 1
calibration.bins 15 >= 1
certified.crown true
certified.examples 256 >= 1
fosc.random_start false
fosc.step_size 0.25 > 0
fosc.steps 20 >= 1
influence.examples 256 >= 1
input-hessian.cap 2.0 > 0
input-hessian.examples 256 >= 1
input-hessian.lanczos_steps 40 >= 2
input-hessian.probes 10 >= 1
input-hessian.step_size 0.05 > 0
input-hessian.steps 10 >= 1
input-hessian.strengths [0.1, 0.2, 0.5, 1.0] items >= 1
input-hessian.tolerance 0.001 > 0
input-hessian.top 5 >= 1
param-hessian.examples 256 >= 1
param-hessian.probes 8 >= 0
param-hessian.runs 1 >= 1
param-hessian.steps 60 >= 2
param-hessian.tolerance 0.001 > 0
param-hessian.top 5 >= 1
sharpness.asam [0.5, 1.0] > 0
sharpness.average [0.05, 0.1] > 0
sharpness.awp [0.005, 0.01] > 0
sharpness.curve "regenerated"
sharpness.directions 4 >= 1
sharpness.examples 256 >= 1
sharpness.points 11 >= 3
sharpness.reach 1.0 > 0
sharpness.sam [0.05, 0.1] > 0
sharpness.side 7 >= 0
sharpness.steps 10 >= 1
smoothness.examples 128 >= 1
smoothness.sizes [0.03, 0.01, 0.003, 0.001] items >= 2 > 0
smoothness.steps 10 >= 1
updates.every 1 >= 1
"""
"""Every field with its default, which tasks/README.md names, and its bounds."""


def test_fields_have_the_defaults_of_the_manual_and_bounds() -> None:
    kinds = {name: find.part(Collector, name) for name in sorted(find.names(find.PACKAGE / "collectors"))}

    found = fields("collector", Collector) + [line for name, kind in kinds.items() for line in fields(name, kind)]

    assert found == FIELDS.split("\n")[1:-1]
    assert {name for name, kind in kinds.items() if kind.along_only} == {"updates"}


def small(model: nn.Module) -> Scene:
    x = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = model.double().eval().requires_grad_(False)
    return Scene(model, x, torch.arange(12) % 3, Threat("L2", 0.3), 3, attack=PGD(steps=2))


def network() -> nn.Module:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3))


class Hard(nn.Module):
    """Nothing of the pixels has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3, 16))

    def forward(self, x: Tensor) -> Tensor:
        return x.detach().flatten(1) @ self.weight.T


NEED_NO_GRADIENT = {"calibration", "certified", "sparsity", "updates"}


@pytest.mark.parametrize("name", sorted(set(find.names(find.PACKAGE / "collectors")) - NEED_NO_GRADIENT))
def test_a_model_without_an_input_gradient_is_the_reason_for_nothing(name: str) -> None:
    scene = small(Hard())
    scene.__dict__["adversarial"] = scene.x  # whatever made them

    with pytest.raises(
        NotApplicable, match=r"^the model has no input gradient \(element 0 of tensors does not require"
    ):
        find.part(Collector, name)().collect(scene)


@pytest.mark.parametrize("name", ["calibration", "sparsity"])
def test_where_no_attack_can_be_the_clean_images_are_looked_at_alone(name: str) -> None:
    model = nn.Sequential(Hard(), nn.ReLU())

    found = find.part(Collector, name)().collect(small(model))

    assert not any("adversarial" in value for value in (*found.values, *found.arrays))
    assert any(value.startswith("clean") for value in found.values)
    assert any(note.startswith("adversarial: not applicable: the model has no input gradient") for note in found.notes)


@pytest.mark.parametrize(
    "collector", [Calibration(), Fosc(steps=2, random_start=True), Linearity(), Margins(), Sparsity()], ids=str
)
def test_all_that_is_computed_lies_on_the_device_of_the_examples(collector: Collector) -> None:
    """What is made anywhere else is made on torch's default device, which holds no numbers here."""
    expected, scene = collector.collect(small(network())), small(network())

    with torch.device("meta"):
        found = collector.collect(scene)

    assert found.values == expected.values
    assert all(torch.equal(found.arrays[name], array) for name, array in expected.arrays.items())


def test_spectra_are_found_on_the_device_of_the_images() -> None:
    scene = small(network())
    start, probe = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
    grid = torch.linspace(-1, 1, 9, dtype=torch.float64)

    def spectra() -> list[Tensor]:
        exact = factor(scene.model, scene.x, scene.y)
        multiply = products(scene.model, scene.x, scene.y)
        found = lanczos(multiply, start, steps=6, top=2, tolerance=1e-3)
        curve = density(found.values, found.weights, grid, 0.1)
        return [
            exact.values,
            exact.vectors(2),
            exact.ascent(0.1, 3),
            found.values,
            curve,
            *trace(multiply, found, [probe]),
        ]

    expected = spectra()
    with torch.device("meta"):
        found = spectra()

    assert all(map(torch.equal, found[:-1], expected[:-1]))
