"""fast-bat: its gradient against autograd through the projected step, and against differences."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import one_step
import pytest
import torch
from one_step import Attention, close, gradients, noise, slope, state_of
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from advbench.passes import counting
from advbench.precision import Engine, fast
from advbench.spec import BadInput
from advbench.threat import Threat

THREAT = Threat("Linf", one_step.EPS)
defense = partial(one_step.defense, "fast-bat")
network = partial(one_step.network, scale=2)  # bent enough that the implicit gradient matters


@pytest.fixture
def batch(blobs) -> tuple[Tensor, Tensor]:
    data = blobs(24)
    return data.pixels(slice(None)).double(), data.labels


def bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    return (x - THREAT.eps).clamp_min(0), (x + THREAT.eps).clamp_max(1)


def random_point(x: Tensor) -> Tensor:
    return THREAT.random_start(x, noise())


def answered(model: nn.Module, z: Tensor, x: Tensor, y: Tensor, step: float) -> Tensor:
    """x + d*(theta), by the closed form."""
    return (z + step * slope(model, z, y, graph=True)).clamp(*bounds(x))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("start_steps", [0, 1])
@pytest.mark.parametrize("step", [0.2, 1.0, 20.0])
def test_the_gradient_is_autograd_s_through_the_projected_step(batch, step, start_steps, smoothing):
    x, y = batch
    model = network()
    state = state_of(model, smoothing=smoothing)
    z = random_point(x)
    for _ in range(start_steps):
        z = answered(model, z, x, y, step).detach()
    x_adv = answered(model, z, x, y, step)
    expected = cross_entropy(model(x_adv), y, label_smoothing=smoothing)
    plain = gradients(cross_entropy(model(x_adv.detach()), y, label_smoothing=smoothing), model)

    loss = defense(step_size=step, start_steps=start_steps).loss(state, x, y)

    through = gradients(expected, model)
    found = gradients(loss, model)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert close(found, through, 1e-9)
    assert state.smoothed
    # Each part is measured, and the implicit one is not nothing.
    low, high = bounds(x)
    active = ((x_adv > low) & (x_adv < high)).double().mean()
    assert float(state.report["active"]) == pytest.approx(active.item(), rel=1e-6)
    assert float(state.report["implicit"]) == pytest.approx(((through - plain).norm() / plain.norm()).item(), rel=1e-6)
    assert float(state.report["implicit"]) > 1e-3


def test_a_weight_that_is_not_used_has_no_gradient_and_changes_none(batch):
    model, more = network(), network()
    more.register_parameter("spare", nn.Parameter(torch.ones(2, dtype=torch.float64)))
    made = defense(step_size=1.0)

    found = gradients(made.loss(state_of(more), *batch), more)

    assert next(more.named_parameters())[0] == "spare"
    assert torch.equal(found[:2], torch.zeros(2, dtype=torch.float64))
    assert torch.equal(found[2:], gradients(made.loss(state_of(model), *batch), model))


def test_the_gradient_of_a_network_with_attention(batch):
    x, y = batch
    torch.manual_seed(0)
    model, step = Attention().double(), 1.0
    with sdpa_kernel(SDPBackend.MATH):
        expected = gradients(cross_entropy(model(answered(model, random_point(x), x, y, step)), y), model)

    found = gradients(defense(step_size=step, start_steps=0).loss(state_of(model), x, y), model)

    assert close(found, expected, 1e-9)


def test_the_gradient_is_that_of_finite_differences(batch):
    x, y = batch
    model, step = network(), 1.0
    z, width = random_point(x), 1e-5
    torch.manual_seed(1)
    direction = [torch.randn_like(weight) for weight in model.parameters()]

    def upper(shift: float) -> float:
        with torch.no_grad():
            for weight, way in zip(model.parameters(), direction, strict=True):
                weight += shift * way
        loss = cross_entropy(model(answered(model, z, x, y, step)), y).item()
        with torch.no_grad():
            for weight, way in zip(model.parameters(), direction, strict=True):
                weight -= shift * way
        return loss

    difference = (upper(width) - upper(-width)) / (2 * width)
    way = torch.cat([part.flatten() for part in direction])
    exact, without = (
        gradients(defense(step_size=step, start_steps=0, **fields).loss(state_of(model), x, y), model) @ way
        for fields in ({}, {"ig_scale": 0.0})
    )

    assert exact.item() == pytest.approx(difference, rel=1e-3)
    assert without.item() != pytest.approx(difference, rel=1e-2)


def test_other_scales_weigh_the_implicit_gradient_alone(batch):
    x, y = batch
    model = network()
    of = {
        scale: gradients(defense(step_size=5.0, ig_scale=scale).loss(state_of(model), x, y), model)
        for scale in (None, 5.0, 0.1, 0.0)
    }

    assert torch.equal(of[None], of[5.0])
    assert close(of[0.1] - of[0.0], (of[None] - of[0.0]) * 0.1 / 5, 1e-9)


@pytest.mark.parametrize(
    ("eps", "step"), [(4 / 255, 5000 / 255), (8 / 255, 5000 / 255), (8.1 / 255, 2000 / 255), (16 / 255, 2000 / 255)]
)
def test_left_out_the_step_is_the_authors_and_the_scale_is_exact(batch, eps, step):
    model, found = network(), list[Tensor]()
    for fields in ({}, {"step_size": step, "ig_scale": step}):
        state = state_of(model)
        state.threat = Threat("Linf", eps)
        found.append(gradients(defense(**fields).loss(state, *batch), model))

    assert torch.equal(*found)


def test_a_step_without_end_is_adversarial_training_at_a_corner(batch):
    x, y = batch
    model, state, met = network(), state_of(network()), list[Tensor]()
    state.model = model
    low, high = bounds(x)
    z = random_point(x)
    corner = torch.where(slope(model, z, y, graph=True) > 0, high, low)
    model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach().clone()))

    loss = defense(step_size=1e12, start_steps=0).loss(state, x, y)

    assert torch.equal(met[-1], corner)
    assert state.report["active"] == 0
    assert state.report["implicit"] == 0
    assert torch.equal(gradients(loss, model), gradients(cross_entropy(model(corner), y), model))


def test_the_larger_the_step_the_fewer_pixels_answer(batch):
    shares = list[float]()
    for step in (0.01, 0.2, 1.0, 5.0, 20.0, 100.0):
        state = state_of(network())
        defense(step_size=step).loss(state, *batch)
        shares.append(float(state.report["active"]))

    assert all(a > b for a, b in pairwise(shares))
    assert shares[0] > 0.9
    assert shares[-1] < 0.1


@pytest.mark.parametrize(("mode", "tracked"), [("train", 3), ("eval", 1)])
def test_with_batch_norm_the_statistics_are_those_of_the_passes(batch, mode, tracked):
    x, y = batch
    model, step = network(norm=True), 1.0
    for _ in range(3):
        model.train()(x)  # so that statistics in eval mode are not those of the batch, and a training pass moves them
    before = {name: value.clone() for name, value in model.named_buffers()}

    def at(z: Tensor, *, training: bool) -> Tensor:
        model.train(training)
        return functional_call(model, {name: value.clone() for name, value in before.items()}, z)

    z = random_point(x)
    for _ in range(2):
        start = z.detach()
        z = start + step * slope(lambda pixels: at(pixels, training=mode == "train"), start, y, graph=True)
        z = z.clamp(*bounds(x))
    expected = gradients(cross_entropy(at(z, training=True), y), model)

    found = gradients(defense(step_size=step, attack_bn=mode).loss(state_of(model), x, y), model)

    assert close(found, expected, 1e-9)
    assert model.training
    assert model.get_buffer("1.num_batches_tracked") == before["1.num_batches_tracked"] + tracked


@pytest.mark.parametrize("start_steps", [0, 1, 2])
def test_what_it_costs_and_what_it_leaves(batch, start_steps):
    x, y = batch
    model = network()
    model.append(nn.Linear(3, 3).double().requires_grad_(False))  # a part that is not trained
    made, before = defense(start_steps=start_steps), [weight.clone() for weight in model.parameters()]
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in trainable:
        weight.grad = torch.full_like(weight, 7.0)
    state = state_of(model)

    with counting(model) as passes:
        loss = made.loss(state, x, y)
        assert all((weight.grad == 7).all() for weight in trainable)
        loss.backward()

    assert (passes.forward / len(x), passes.backward / len(x)) == made.passes()
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))
    assert all(weight.grad is None for weight in model[-1].parameters())


def test_only_the_pass_that_is_differentiated_twice_leaves_the_fast_format(batch):
    x, y = batch
    model, kinds = network().float(), list[str]()
    model.register_forward_hook(lambda module, *_: kinds.append(type(module).__name__))

    with fast(model, Engine("bf16", channels_last=True)):
        loss = defense().loss(state_of(model), x.float(), y)

    assert kinds == ["Fast", "Sequential", "Fast"]
    assert loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"step_size": 0}, "step_size: should be greater than 0, not 0"),
        ({"ig_scale": -1}, "ig_scale: should be greater than or equal to 0, not -1"),
        ({"start_steps": -1}, "start_steps: should be greater than or equal to 0, not -1"),
        ({"attack_bn": "off"}, "attack_bn: should be 'train' or 'eval', not \"off\""),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput) as caught:
        defense(**fields)

    assert caught.value.lines == (line,)
