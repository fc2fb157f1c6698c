"""Per-example gradients against a backward pass for each, and shares by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from advbench.collectors import input_hessian
from advbench.collectors.base import spearman
from advbench.collectors.influence import Influence, gradient_lengths, top_share
from advbench.collectors.input_hessian import InputHessian
from advbench.losses import cross_entropy


def expected(scene, images: Tensor) -> Tensor:
    leaves = scene.parameters()
    found = []
    for row in range(len(images)):
        loss = cross_entropy(scene.with_parameters(leaves, images[row : row + 1]), scene.y[row : row + 1]).sum()
        parts = torch.autograd.grad(loss, list(leaves.values()))
        found.append(torch.cat([part.flatten() for part in parts]).norm())
    return torch.stack(found)


class Stubborn(nn.Module):
    """What vmap has no rule for: a value that steers."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.detach().sum()) > -1e9 else -x


def test_lengths_are_those_of_a_backward_pass_for_each(scene):
    looked = scene(12, batch=5)

    lengths, how = gradient_lengths(looked, looked.adversarial)

    assert torch.allclose(lengths, expected(looked, looked.adversarial), rtol=1e-9)
    assert "vmap" in how


def test_what_vmap_cannot_do_is_done_one_by_one(scene, digits_cnn):
    looked = scene(6, model=nn.Sequential(Stubborn(), *digits_cnn).double())

    lengths, how = gradient_lengths(looked, looked.x)

    assert torch.allclose(lengths, expected(looked, looked.x), rtol=1e-9)
    assert "one by one" in how
    # A weight that the loss does not see adds nothing.
    looked.model.register_parameter("unseen", nn.Parameter(torch.ones(3).double(), requires_grad=False))
    assert torch.equal(gradient_lengths(looked, looked.x)[0], lengths)


def test_the_share_of_the_top_tenth():
    lengths = torch.ones(20)
    assert float(top_share(lengths)) == pytest.approx(0.1)
    lengths[3], lengths[7] = 3.0, 4.0
    assert float(top_share(lengths)) == pytest.approx(25 / 43)
    assert float(top_share(1e-30 * lengths)) == pytest.approx(25 / 43)
    assert float(top_share(torch.tensor([2.0, 1.0]))) == pytest.approx(0.8)


def test_numbers_are_those_of_the_arrays_and_batches_change_nothing(scene):
    whole, small = (Influence().collect(scene(30, batch=batch)) for batch in (256, 7))

    assert whole.arrays["louder"].shape == (30,)
    ratio = whole.arrays["adversarial_length"] / whole.arrays["clean_length"]
    assert whole.values["louder_median"].value == pytest.approx(float(ratio.quantile(0.5)))
    for name, found in whole.values.items():
        assert small.values[name].value == pytest.approx(found.value, rel=1e-8), name
    looked = scene(30)
    sure, bent = looked.logits(looked.x).softmax(1).amax(1), InputHessian().largest(looked)
    assert whole.values["louder_with_confidence"].value == pytest.approx(spearman(ratio, sure))
    assert whole.values["louder_with_curvature"].value == pytest.approx(spearman(ratio, bent))
    assert -1 <= spearman(ratio, bent) <= 1


def test_the_input_curvature_is_that_of_its_own_collector_and_found_once_for_both(scene, monkeypatch):
    alone = InputHessian().collect(scene(9))
    found, spectra = [], input_hessian.factor
    monkeypatch.setattr(input_hessian, "factor", lambda *asked: found.append(asked) or spectra(*asked))
    looked = scene(9)

    largest = InputHessian().largest(looked)
    after = InputHessian(examples=9).collect(looked)

    assert len(found) == 2, "clean, and adversarial"
    assert torch.equal(largest, alone.arrays["clean_values"][:, 0])
    assert after.values == alone.values
    assert all(torch.equal(after.arrays[name], array) for name, array in alone.arrays.items())

    InputHessian(top=3).largest(looked)
    InputHessian().largest(looked.only(5))
    assert [len(x) for _, x, _ in found[2:]] == [9, 5], "another question, and other examples"
