"""Is the curvature in the pixels right, and does the closed form say where the ascent goes?"""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from advbench.attacks.pgd import input_gradient
from advbench.collectors.base import NotApplicable, spearman
from advbench.collectors.input_hessian import InputHessian, share
from advbench.collectors.input_spectrum import factor
from advbench.models.mlp import Mlp
from advbench.threat import Threat


def smooth(model: nn.Sequential) -> nn.Sequential:
    """The same weights with ReLUs made smooth."""
    return nn.Sequential(*(nn.Softplus(5.0) if isinstance(layer, nn.ReLU) else layer for layer in model))


def test_the_exact_method_and_lanczos_agree_on_a_piecewise_linear_network(scene, monkeypatch):
    looked = scene(16)
    exact = InputHessian(top=9).collect(looked)
    monkeypatch.setattr("advbench.collectors.input_hessian.CLASSES", 2)
    krylov = InputHessian(top=9, tolerance=1e-12, lanczos_steps=64).collect(looked)

    assert "exact" in exact.notes[1]
    assert "Lanczos" in krylov.notes[1]
    assert not any("above the rank" in note for note in exact.notes)
    for name in ("clean_confidence", "adversarial_confidence"):
        assert torch.allclose(exact.arrays[name], krylov.arrays[name], atol=1e-12), name
    logits = looked.model(looked.x)
    assert torch.allclose(exact.arrays["clean_confidence"], logits.softmax(1).max(1).values)
    for name in ("clean_values", "clean_trace", "adversarial_values", "adversarial_trace"):
        size = exact.arrays["clean_values"].amax()
        assert torch.allclose(exact.arrays[name], krylov.arrays[name], atol=1e-7 * float(size)), name


def test_a_smooth_network_s_values_are_those_of_its_dense_hessian(scene, digits_cnn):
    looked = scene(4, model=smooth(digits_cnn).double())
    found = InputHessian(top=64, lanczos_steps=64, tolerance=1e-300).collect(looked)

    for row in range(4):
        dense = torch.autograd.functional.hessian(
            lambda x, row=row: nn.functional.cross_entropy(looked.model(x[None]), looked.y[row : row + 1]),
            looked.x[row],
        )
        values = torch.linalg.eigvalsh(dense.view(64, 64)).flip(0)
        assert torch.allclose(found.arrays["clean_values"][row], values, atol=1e-8 * float(values[0]))
        assert float(found.arrays["clean_trace"][row]) == pytest.approx(float(values.sum()), rel=1e-6)
    assert "not piecewise linear" in found.notes[1]
    assert any("closed form" in note for note in found.notes)
    assert "not applicable: gates, for the network has none" in found.notes
    assert not any(name.startswith("gates") for name in found.values)


def test_beyond_a_hundred_classes_a_spectrum_costs_its_products():
    """A product is four passes: forward and backward, and both once more for the second derivative."""
    made = InputHessian(lanczos_steps=7, probes=3)

    assert made.spectrum(100) == 1 + 100
    assert made.spectrum(101) == 4 * (7 + 3)


def test_strengths_that_do_not_rise_are_refused():
    for strengths in ((0.2, 0.1), (0.0, 1.0), (0.5, 0.5)):
        with pytest.raises(ValidationError, match="should rise, and begin above 0"):
            InputHessian(strengths=strengths)


def test_the_closed_form_is_close_at_first_and_leaves_the_ascent_as_it_grows(scene, digits_test):
    torch.manual_seed(0)
    model = Mlp().build((1, 8, 8), 10)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(digits_test.pixels(slice(None))), digits_test.labels).backward()
        optimizer.step()
    looked = scene(200, model=model.double())

    found = InputHessian(step_size=0.01, strengths=(0.05, 0.2, 0.5, 1.0), cap=1e9).collect(looked)

    errors = found.arrays["closed_form_error"].tolist()
    assert errors[1] < 0.02
    assert errors == sorted(errors)
    assert errors[3] > 3 * errors[0]
    assert (found.values["size_follows_curvature"].value or 0) > 0.9


def test_energies_and_errors_are_those_of_the_ways_worked_out_one_by_one(scene):
    looked = scene(7)
    found = InputHessian(steps=3, step_size=0.05, strengths=(0.01, 0.1, 0.2), cap=1e9).collect(looked)

    exact = factor(looked.model, looked.x, looked.y)
    vectors, project, x_adv, energy = exact.vectors(2), looked.threat.projection(looked.x), looked.x, []
    for _ in range(3):
        slope = input_gradient(looked.model, x_adv, looked.y)
        x_adv = project(looked.threat.step(x_adv, slope, looked.threat.eps / 4))
        energy.append(share(vectors, (x_adv - looked.x).flatten(1)).median(0).values)
    way, errors, energies = torch.zeros_like(looked.x), [], []
    for step in range(1, 5):
        way = way + 0.05 * input_gradient(looked.model, looked.x + way, looked.y)
        if step in (1, 2, 4):  # strengths of 0.01 (one step at least), 0.1 and 0.2
            real = way.flatten(1)
            errors.append(((exact.ascent(0.05, step) - real).norm(dim=1) / real.norm(dim=1)).median())
            energies.append(share(vectors, real).median(0).values)

    torch.testing.assert_close(found.arrays["attack_energy"], torch.stack(energy))
    assert found.values["attack_energy_1"].value == pytest.approx(float(energy[-1][0]))
    assert found.values["attack_energy_2"].value == pytest.approx(float(energy[-1][1]))
    torch.testing.assert_close(found.arrays["ascent_energy"], torch.stack(energies))
    torch.testing.assert_close(found.arrays["closed_form_error"], torch.stack(errors))
    assert found.values["closed_form_kept"].value == 1
    sizes = way.flatten(1).norm(dim=1)
    largest = exact.values[:, 0]
    assert found.values["size_follows_curvature"].value == pytest.approx(spearman(sizes, largest))


def test_what_bends_more_than_the_cap_is_left_out_of_the_comparison(scene):
    looked = scene(20)
    largest = InputHessian().largest(looked)
    cap = float(largest.median()) / 2

    found = InputHessian(strengths=(0.1, 0.5), cap=cap).collect(looked)

    assert found.values["closed_form_kept"].value == pytest.approx(float((largest * 0.5 <= cap).double().mean()))


def test_the_share_along_eigenvectors_is_a_share():
    vectors = torch.eye(5, dtype=torch.float64)[None, :2]
    delta = torch.tensor([[3.0, 4.0, 0, 0, 12.0], [0, 0, 0, 0, 0]], dtype=torch.float64)

    found = share(vectors.expand(2, 2, 5), delta)

    assert torch.allclose(found, torch.tensor([[9 / 169, 25 / 169], [0, 0]], dtype=torch.float64))
    assert torch.allclose(share(vectors, 1e-30 * delta[:1].float().double()), found[:1])


def test_batches_change_nothing(scene):
    whole, small = InputHessian().collect(scene(30)), InputHessian().collect(scene(30, batch=7))

    assert whole.values.keys() == small.values.keys()
    for name, measure in whole.values.items():
        assert small.values[name].value == pytest.approx(measure.value, rel=1e-9), name
    assert whole.notes == small.notes


def test_more_eigenvalues_than_the_rank_are_not_made_up(scene):
    found = InputHessian(top=50).collect(scene(5))

    assert found.arrays["clean_values"].shape == (5, 9)
    assert "top = 50 is above the rank; there are 9 eigenvalues" in found.notes


def test_unconfident_examples_do_not_spoil_the_medians(scene, digits_cnn):
    looked = scene(30)
    looked.model[-1].weight.data *= 100
    looked.model[-1].bias.data *= 100

    found = InputHessian(step_size=5.0, strengths=(5.0, 50.0)).collect(looked)

    assert 0 < (found.values["closed_form_kept"].value or 0) < 1
    assert found.values["closed_form_error_50"].value is not None
    assert found.values["clean_top1_median"].value is not None


def test_a_model_without_a_gradient_is_told_with_the_reason(scene):
    class Hard(nn.Module):
        def forward(self, x):
            return x.detach().flatten(1)[:, :10]

    with pytest.raises(NotApplicable, match="no input gradient"):
        InputHessian().collect(scene(5, model=Hard(), threat=Threat("L2", 0.5)))
