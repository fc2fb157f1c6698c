"""gradalign: its term against autograd's second derivative, and where it is nothing."""

from __future__ import annotations

import pytest
import torch
from one_step import EPS, close, defense, gradients, network, noise, same_loss, slope, state_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cosine_similarity, cross_entropy

from advbench.precision import Engine, fast
from advbench.spec import BadInput
from advbench.threat import Threat


def test_its_loss_is_that_of_the_paper_with_the_image_s_gradient_held_fixed(batch):
    x, y = batch
    model = network()
    at_image = slope(model, x, y)
    at_noise = slope(model, x + EPS * noise().uniform(x), y, graph=True)
    x_adv = (x + EPS * at_image.sign()).clamp(0, 1)
    term = (1 - cosine_similarity(at_image.flatten(1), at_noise.flatten(1), eps=0)).mean()
    expected = cross_entropy(model(x_adv), y) + 3 * term
    state = state_of(model)
    # The term's gradient is not nothing.
    part = torch.autograd.grad(term, list(model.parameters()), retain_graph=True)
    assert sum(float(grad.norm()) for grad in part) > 1e-3

    assert same_loss(defense("gradalign", weight=3), state, x, y, expected)
    assert float(state.report["misalignment"]) == pytest.approx(term.item(), rel=1e-9)
    assert 1e-3 < term.item() < 1


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_model_of_two_classes_is_aligned(batch, norm):
    x, y = batch
    model, y = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).double(), y % 2
    state = state_of(model, Threat(norm, EPS))

    defense("gradalign").loss(state, x, y)

    assert abs(float(state.report["misalignment"])) < 1e-12


def test_gradients_of_nothing_and_next_to_nothing(batch):
    x, y = batch

    class Flat(nn.Module):
        """The first example's logits say nothing of it, the second's next to nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            size = torch.ones(len(x), 1, dtype=x.dtype)
            size[0], size[1] = 0, 1e-200
            return self.inner(x) * size

    model = Flat()
    state = state_of(model)

    gradient = gradients(defense("gradalign").loss(state, x, y), model)

    at_image, at_noise = slope(model, x, y), slope(model, x + EPS * noise().uniform(x), y)
    each = 1 - cosine_similarity(at_image[1:].flatten(1) * 1e180, at_noise[1:].flatten(1) * 1e180, eps=0)
    rest = 1 - cosine_similarity(at_image[2:].flatten(1), at_noise[2:].flatten(1), eps=0)
    assert float(state.report["misalignment"]) == pytest.approx(float(each[0] + rest.sum()) / len(x), rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(("mode", "tracked"), [("train", 3), ("eval", 1)])
def test_with_batch_norm_both_gradients_meet_the_same_statistics(batch, mode, tracked):
    x, y = batch
    model = network(norm=True)
    for _ in range(3):
        model.train()(0.5 * x)
    before = {name: value.clone() for name, value in model.named_buffers()}

    def at(z: Tensor, *, training: bool) -> Tensor:
        model.train(training)
        return functional_call(model, {name: value.clone() for name, value in before.items()}, z)

    def crafting(z: Tensor) -> Tensor:
        return at(z, training=mode == "train")

    at_image = slope(crafting, x, y)
    at_noise = slope(crafting, x + EPS * noise().uniform(x), y, graph=True)
    x_adv = (x + EPS * at_image.sign()).clamp(0, 1)
    term = (1 - cosine_similarity(at_image.flatten(1), at_noise.flatten(1), eps=0)).mean()
    expected = gradients(cross_entropy(at(x_adv, training=True), y) + 0.2 * term, model)

    found = gradients(defense("gradalign", attack_bn=mode).loss(state_of(model), x, y), model)

    assert close(found, expected)
    assert model.training
    assert model.get_buffer("1.num_batches_tracked") == before["1.num_batches_tracked"] + tracked


def test_only_the_training_pass_is_in_the_fast_format(batch):
    x, y = batch
    model, kinds = network().float(), list[str]()
    model.register_forward_hook(lambda module, *_: kinds.append(type(module).__name__))

    with fast(model, Engine("bf16", channels_last=True)):
        defense("gradalign").loss(state_of(model), x.float(), y)

    assert kinds == ["Sequential", "Sequential", "Fast"]


@pytest.mark.parametrize("fields", [{"weight": -1}, {"step_size": 0}, {"attack_bn": "off"}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("gradalign", **fields)
