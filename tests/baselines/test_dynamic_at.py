"""dynamic-at: the criterion, its threshold, and that those who stop really leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advbench import find
from advbench.attacks.pgd import ascend, input_gradient
from advbench.defense import Defense, TrainState
from advbench.passes import counting
from advbench.seeds import Stream, generator
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

EPS: dict[Norm, float] = {"Linf": 0.1, "L2": 0.6}
both_norms = pytest.mark.parametrize("norm", EPS)


def defense(**fields: Any) -> Defense:
    return find.build(find.defense(find.shipped("baselines") / "dynamic_at.py"), fields)


@pytest.fixture
def network(blobs) -> nn.Module:
    """In float64, and trained a little: what it reads well is flat, what it does not is steep."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 3)).double()
    optimizer, data = torch.optim.Adam(model.parameters(), 0.02), blobs(96, seed=1)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model(data.pixels(slice(None)).double()), data.labels).backward()
        optimizer.step()
    return model


@pytest.fixture
def batch(blobs) -> tuple[Tensor, Tensor]:
    """A third in black and white, where pixels cannot move and the criterion stays up; a third of little contrast."""
    data = blobs(24)
    x = data.pixels(slice(None)).double()
    x[::3], x[1::3] = x[::3].round(), 0.5 + 0.4 * (x[1::3] - 0.5)
    return x, data.labels


@pytest.fixture
def state_of() -> Callable[..., TrainState]:
    def make(model: nn.Module, norm: Norm = "Linf", **fields: Any) -> TrainState:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return TrainState(model.train(), optimizer, Threat(norm, EPS[norm]), Stream(generator("cpu", 7)), **fields)

    return make


def masked(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, threshold: float, start: Tensor, origin: Tensor):
    """Algorithm 1 as it is written: everyone stays in the batch, and a mask says who steps.

    The last iterates, the steps that each took, the criterion (10, N) at every step, and the rows that each needs.
    """
    x_adv, going = start, torch.ones(len(x), dtype=torch.bool)
    steps, seen, needed = torch.zeros(len(x), dtype=torch.int64), list[Tensor](), list[Tensor]()
    for k in range(10):
        grad = input_gradient(model, x_adv, y)
        dual = grad.abs().flatten(1).sum(1) if threat.norm == "Linf" else grad.flatten(1).norm(dim=1)
        seen.append(threat.eps * dual - ((x_adv - origin) * grad).flatten(1).sum(1))
        needed.append(going.nonzero().squeeze(1))
        going = going & (seen[-1] > threshold) if k else going
        stepped = threat.project(threat.step(x_adv, grad, threat.eps / 4), x)
        x_adv = torch.where(going[:, None, None, None], stepped, x_adv)
        steps += going
    return x_adv, steps, torch.stack(seen), needed


@both_norms
@pytest.mark.parametrize(("start", "reference"), [("image", "image"), ("random", "start"), ("random", "image")])
def test_it_is_the_algorithm_with_a_mask_without_the_passes_of_those_that_stopped(
    norm: Norm, start, reference, network, batch, state_of
):
    x, y = batch
    met, ends = list[Tensor](), set[int]()
    network.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach().clone()))
    threat = Threat(norm, EPS[norm])
    begin = x if start == "image" else threat.random_start(x, Stream(generator("cpu", 7)), box=False)
    origin = x if reference == "image" else begin
    _, _, everything, _ = masked(network, x, y, threat, -torch.inf, begin, origin)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        threshold, state = everything.clamp_min(0).quantile(share).item(), state_of(network, norm)
        expected, steps, seen, needed = masked(network, x, y, threat, threshold, begin, origin)
        ends |= set(steps.tolist())
        met.clear()

        with counting(network) as passes:
            loss = defense(c_max=threshold, start=start, fosc_ref=reference).loss(state, x, y)

        *attack, trained_on = met
        assert [len(pixels) for pixels in attack] == [len(rows) for rows in needed if len(rows)]
        assert passes.forward == sum(map(len, needed)) + len(x)
        assert passes.backward == sum(map(len, needed))  # the weights' own is still to come
        assert torch.allclose(trained_on, expected, rtol=0, atol=1e-12)
        # Those that stopped are bit for bit where they were seen last.
        for row in (steps < 10).nonzero().squeeze(1).tolist():
            k = int(steps[row])
            assert torch.equal(trained_on[row], attack[k][needed[k].tolist().index(row)])
        assert torch.allclose(loss, cross_entropy(network(expected), y))
        known = seen.gather(0, steps.clamp_max(9)[None])[0]
        assert state.report["threshold"] == threshold
        assert state.report["steps"] == pytest.approx(steps.double().mean().item())
        assert float(state.report["fosc_median"]) == pytest.approx(known.quantile(0.5).item(), rel=1e-9)
        assert float(state.report["fosc_p90"]) == pytest.approx(known.quantile(0.9).item(), rel=1e-9)
    # The thresholds did part the batch, in many ways.
    assert {1, 10} < ends
    assert len(ends) > 4


@both_norms
def test_the_two_ends_of_the_threshold_are_one_step_and_pgd(norm: Norm, network, batch, state_of):
    x, y = batch
    met = list[Tensor]()
    network.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach().clone()))
    for c_max, steps, gradients in ((1e6, 1, 2), (0.0, 10, 10)):
        state = state_of(network, norm)
        expected = ascend(network, x, y, state.threat, start=x, steps=steps, step_size=state.threat.eps / 4)
        met.clear()

        defense(c_max=c_max).loss(state, x, y)

        assert torch.equal(met[-1], expected)
        assert len(met) == gradients + 1
        assert state.report["steps"] == steps


def test_the_box_aware_criterion_sees_that_pixels_at_the_box_cannot_move(network, batch, state_of):
    x, y = batch
    x = x.round()  # black and white
    state = state_of(network)

    defense(c_max=0).loss(state, x, y)

    known = ascend(network, x, y, state.threat, start=x, steps=9, step_size=state.threat.eps / 4)
    grad = input_gradient(network, known, y)
    upper, lower = (x + 0.1).clamp_max(1), (x - 0.1).clamp_min(0)
    gap = torch.maximum(grad * (upper - known), grad * (lower - known)).flatten(1).sum(1)
    assert float(state.report["fosc_box_median"]) == pytest.approx(gap.quantile(0.5).item(), rel=1e-9)
    assert float(state.report["fosc_box_p90"]) == pytest.approx(gap.quantile(0.9).item(), rel=1e-9)
    assert float(state.report["fosc_box_median"]) < float(state.report["fosc_median"]) / 2


def test_from_the_image_on_the_criterion_is_never_negative(network, batch):
    x, y = batch
    for norm in EPS:
        threat, x_adv = Threat(norm, EPS[norm]), x
        for _ in range(12):
            grad = input_gradient(network, x_adv, y)
            assert threat.fosc(x_adv, x, grad).min() >= -1e-6
            x_adv = threat.project(threat.step(x_adv, grad, threat.eps / 4), x)


def test_the_threshold_falls_by_epochs_as_in_the_paper(network, state_of):
    made, state, found = defense(), state_of(network), list[float]()
    for epoch in range(120):
        for step in range(3):
            state.epoch, state.progress = epoch, (3 * epoch + step) / (3 * 120)
            found.append(made.threshold(state))  # type: ignore[attr-defined]
            if step == 1:
                # A training that goes on from here has only what checkpoints keep.
                state.memory = dict(state.memory)

    by_epoch = found[::3]
    assert found == [c for c in by_epoch for _ in range(3)]
    assert by_epoch[:3] == pytest.approx([0.5, 0.495, 0.49], abs=1e-12)
    assert by_epoch == pytest.approx([max(0.5 - t * 0.5 / 100, 0) for t in range(120)], abs=1e-12)


def test_batch_norm_sees_the_training_pass_alone(blobs, state_of):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    data, met = blobs(16), list[Tensor]()
    x, y = data.pixels(slice(None)), data.labels
    twin = nn.BatchNorm2d(4)
    model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach().clone()))

    defense(c_max=0.05).loss(state_of(model), x, y)

    twin(model[0](met[-1]))
    assert model.training
    assert twin.state_dict().keys() == model[1].state_dict().keys()
    assert all(torch.equal(model[1].state_dict()[name], value) for name, value in twin.state_dict().items())
    assert twin.num_batches_tracked == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_weighed_by_their_cross_entropy_from_the_second_epoch_on(network, batch, state_of, smoothing):
    x, y = batch
    x_adv = ascend(network, x, y, Threat("Linf", 0.1), start=x, steps=10, step_size=0.025)
    logits = network(x_adv)
    weight = cross_entropy(logits, y, reduction="none").detach()
    each = cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)
    made = defense(c_max=0, loss_weight="ce")
    for epoch, expected in ((0, each.mean()), (1, (weight * each).mean())):
        state = state_of(network, smoothing=smoothing, epoch=epoch)

        loss = made.loss(state, x, y)

        assert state.smoothed
        assert torch.allclose(loss, expected)
        # The weights are constants.
        ours = torch.autograd.grad(loss, list(network.parameters()))
        theirs = torch.autograd.grad(expected, list(network.parameters()), retain_graph=True)
        assert all(torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"attack_bn": "train"}, 'attack_bn: should be "eval": in train mode those that stop would change the'),
        ({"attack_bn": "off"}, "attack_bn: should be 'eval', not \"off\""),
        ({"steps": 0}, "steps: should be greater than or equal to 1, not 0"),
        ({"c_max": -0.1}, "c_max: should be greater than or equal to 0, not -0.1"),
        ({"decay": 0}, "decay: should be greater than 0, not 0"),
        ({"decay": 1.5}, "decay: should be less than or equal to 1, not 1.5"),
        ({"start": "clean"}, "start: should be 'image' or 'random', not \"clean\""),
    ],
)
def test_what_it_refuses(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput) as caught:
        defense(**fields)

    (said,) = caught.value.lines
    assert said.startswith(line)
