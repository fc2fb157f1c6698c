"""ibp: a step against interval arithmetic written by hand, its schedule, and what it refuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import one_step
import pytest
import torch
from one_step import EPS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench import find
from advbench.defense import TrainState
from advbench.passes import counting
from advbench.precision import Engine, fast
from advbench.spec import BadInput

defense = partial(one_step.defense, "ibp")


def network(*, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    inner: list[nn.Module] = [nn.BatchNorm1d(12)] if norm else []
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *inner, nn.ReLU(), nn.Linear(12, 3)).double()


def state_of(model: nn.Module, progress: float = 0.9, **fields: Any) -> TrainState:
    return one_step.state_of(model, progress=progress, **fields)


@pytest.fixture
def batch(blobs) -> tuple[Tensor, Tensor]:
    data = blobs(24)
    return data.pixels(slice(None)).double(), data.labels


def by_hand(model: Any, x: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Clean logits and worst differences to the label's, each weight taking the end of its input that serves it."""
    low, high = (x - eps).clamp(0, 1).flatten(1), (x + eps).clamp(0, 1).flatten(1)
    first, second = model[1], model[-1]

    def ends(weight: Tensor, bias: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        up, down = weight.clamp(min=0), weight.clamp(max=0)
        return low @ up.T + high @ down.T + bias, high @ up.T + low @ down.T + bias

    low, high = (end.clamp(min=0) for end in ends(first.weight, first.bias, low, high))
    rows: list[Tensor] = []
    for i, label in enumerate(y.tolist()):
        # The last layer as differences of its rows: what the label's own noise adds to both is not counted twice.
        weight, bias = second.weight - second.weight[label], second.bias - second.bias[label]
        rows.append(ends(weight, bias, low[i : i + 1], high[i : i + 1])[1])
    return model(x), torch.cat(rows)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("kappa_end", "radius"), [(0.5, 1.1), (0.0, 1.0), (0.75, 0.5)])
def test_a_step_is_that_of_the_formula(batch, kappa_end, radius, smoothing):
    x, y = batch
    model, reference = network(), network()
    state = state_of(model, smoothing=smoothing)

    value = defense(kappa_end=kappa_end, radius=radius).step(state, x, y)

    clean, worst = by_hand(reference, x, y, radius * EPS)
    losses = [cross_entropy(logits, y, label_smoothing=smoothing) for logits in (clean, worst)]
    expected = kappa_end * losses[0] + (1 - kappa_end) * losses[1]
    gradients = torch.autograd.grad(expected, list(reference.parameters()))
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)  # a sum in float32
    for weights, old, gradient in zip(model.parameters(), reference.parameters(), gradients, strict=True):
        torch.testing.assert_close(weights, old - 0.1 * gradient, rtol=1e-10, atol=1e-12)
    others = worst.scatter(1, y[:, None], -torch.inf).amax(1)
    assert float(state.report["verified"]) == pytest.approx((others < 0).double().mean().item(), abs=1e-6)


def test_the_worst_case_is_at_least_what_any_attack_can_do(batch):
    x, y = batch
    model = network()
    worst = defense(kappa_end=0.0, radius=1.0).loss(state_of(model), x, y)

    for seed in range(20):
        corners = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).sign()
        assert cross_entropy(model((x + EPS * corners).clamp(0, 1)), y) < worst


@pytest.mark.parametrize(
    ("progress", "share"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.0), (0.35, 0.25), (0.5, 0.5), (0.8, 1.0), (0.99, 1.0)]
)
def test_kappa_falls_while_the_radius_grows(batch, progress, share):
    state = state_of(network(), progress)

    defense(warmup=0.2, ramp=0.6, kappa_end=0.25, radius=2.0).loss(state, *batch)

    assert state.report["kappa"] == pytest.approx(1 - 0.75 * share)
    assert state.report["radius"] == pytest.approx(2 * EPS * share)


@pytest.mark.parametrize(("progress", "share"), [(0.19, 0.0), (0.2, 1.0), (0.3, 1.0)])
def test_without_a_ramp_the_radius_is_there_when_the_warmup_is_over(batch, progress, share):
    state = state_of(network(), progress)

    defense(warmup=0.2, ramp=0.0, kappa_end=0.25, radius=2.0).loss(state, *batch)

    assert state.report["kappa"] == 1 - 0.75 * share
    assert state.report["radius"] == 2 * EPS * share


def test_a_ramp_of_the_task_multiplies_its_own(batch):
    state = state_of(network(), 0.5)
    state.threat = state.threat.scaled(0.5)

    defense(warmup=0.2, ramp=0.6, radius=1.0).loss(state, *batch)

    assert state.report["radius"] == pytest.approx(0.5 * 0.5 * EPS)


@pytest.mark.parametrize("fields", [{"warmup": 1.0, "ramp": 0.0}, {"kappa_end": 1.0}])
def test_before_the_ramp_and_at_kappa_1_it_is_standard_training(batch, fields):
    standard = find.defense(find.shipped("baselines") / "standard.py")()
    models = [network(norm=True) for _ in range(2)]

    for made, model in zip((defense(**fields), standard), models, strict=True):
        for _ in range(3):
            made.step(state_of(model), *batch)

    for mine, theirs in zip(*(model.state_dict().values() for model in models), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_what_it_costs_in_any_format(batch):
    x, y = batch
    model, made = network(norm=True).float(), defense()
    expected = made.loss(state_of(model), x.float(), y)
    model.load_state_dict(network(norm=True).float().state_dict())

    with fast(model, Engine("bf16", channels_last=True)), counting(model) as passes:
        made.prepare(state_of(model))
        loss = made.loss(state_of(model), x.float(), y)
        loss.backward()

    assert (passes.forward / len(x), passes.backward / len(x)) == made.passes() == (3, 3)
    # Batch norm's statistics move once, by the clean images; and bounds are of the network itself, never of its bf16.
    assert model.get_buffer("2.num_batches_tracked") == 1
    assert torch.equal(loss, expected)
    assert passes.seen is not None
    assert torch.equal(passes.seen, x.float())


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def test_a_layer_it_does_not_know_is_refused_by_name_before_the_first_step():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 3), Doubled()))

    with pytest.raises(BadInput, match=r"^interval bounds: layer 1\.1 is a Doubled, which they do not know") as caught:
        defense().prepare(state_of(model))

    assert len(caught.value.lines) == 1


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"kappa_end": 1.5}, "kappa_end: should be less than or equal to 1, not 1.5"),
        ({"radius": 0}, "radius: should be greater than 0, not 0"),
        ({"ramp": -0.1}, "ramp: should be greater than or equal to 0, not -0.1"),
        (
            {"warmup": 0.6, "ramp": 0.5},
            "warmup + ramp should be at most 1, or training ends before the radius is reached",
        ),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput) as caught:
        defense(**fields)

    assert caught.value.lines == (line,)
