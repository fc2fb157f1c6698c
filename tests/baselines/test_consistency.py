"""consistency: the divergence in closed form, the views, and the step against a hand-written one."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import pytest
import torch
from one_step import EPS, small_network, state_of
from torch.nn.functional import cross_entropy, kl_div

from advbench import find
from advbench.attacks.pgd import ascend
from advbench.data.randaugment import randaugment
from advbench.passes import counting
from advbench.seeds import generator
from advbench.spec import BadInput
from advbench.threat import Norm, Threat

KIND = find.defense(find.shipped("baselines") / "consistency.py")
MODULE: Any = sys.modules[KIND.__module__]


def defense(**fields: Any) -> Any:
    return find.build(KIND, fields)


def test_the_divergence_is_0_for_equal_logits_symmetric_and_at_most_ln_2():
    draws = torch.Generator().manual_seed(0)
    one, other = (30 * torch.randn(1000, 5, generator=draws, dtype=torch.float64) for _ in range(2))
    js = MODULE.jensen_shannon

    assert js(one, one).abs().max() < 1e-15
    assert js(one, one + 3).abs().max() < 1e-12
    torch.testing.assert_close(js(one, other), js(other, one), rtol=0, atol=1e-15)
    assert js(one, other).min() > 0
    assert js(one, other).max() <= math.log(2) + 1e-15
    # Sure of different classes: as far apart as can be, and finite in float32 where probabilities are 0.
    far = torch.tensor([[500.0, -500.0]], requires_grad=True)
    found = js(far, torch.tensor([[-500.0, 500.0]]))
    assert found.item() == pytest.approx(math.log(2), rel=1e-6)
    assert torch.autograd.grad(found.sum(), far)[0].isfinite().all()


def test_the_divergence_is_the_half_sum_of_two():
    p, q = torch.tensor([[[0.7, 0.2, 0.1]], [[0.1, 0.3, 0.6]]], dtype=torch.float64)
    middle = (p + q) / 2
    by_hand = (kl_div(middle.log(), p, reduction="sum") + kl_div(middle.log(), q, reduction="sum")) / 2

    assert MODULE.jensen_shannon(p.log(), q.log()).item() == pytest.approx(by_hand.item(), abs=1e-15)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_step_is_the_papers_by_hand(norm: Norm, batch: Any):
    x, y = batch
    model, made = small_network(), defense(weight=2.0, temperature=0.25, steps=3, shift=0.125)
    hand, state = copy.deepcopy(model), state_of(model, Threat(norm, EPS))
    before = state_of(hand, Threat(norm, EPS))
    one, other = made.view(before, x), made.view(before, x)
    views, labels = torch.cat([one, other]), torch.cat([y, y])
    start = state.threat.random_start(views, before.noise)

    made.step(state, x, y)

    x_adv = ascend(hand.eval(), views, labels, state.threat, start=start, steps=3, step_size=EPS / 4)
    logits = hand.train()(x_adv)
    # softmax(z / T) is p^(1 / T), normalised.
    p, q = (half.softmax(1) ** 4 for half in (logits[:12], logits[12:]))
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    middle = ((p + q) / 2).log()
    divergence = (kl_div(middle, p, reduction="batchmean") + kl_div(middle, q, reduction="batchmean")) / 2
    grads = torch.autograd.grad(cross_entropy(logits, labels) + 2 * divergence, [*hand.parameters()])
    assert divergence > 1e-4
    assert float(torch.as_tensor(state.report["divergence"]).detach()) == pytest.approx(divergence.item(), abs=1e-12)
    for now, old, g in zip(model.parameters(), hand.parameters(), grads, strict=True):
        torch.testing.assert_close(now, old - 0.1 * g, rtol=0, atol=1e-12)


def test_a_view_is_the_image_moved_by_so_much_and_each_image_moves_for_itself():
    draws = torch.Generator().manual_seed(0)
    ramp = torch.arange(16.0).expand(200, 1, 16, 16) / 32  # moved by d pixels it is itself less or more d / 32
    moved = MODULE.shifted(ramp, draws, 1 / 8)
    inside = 32 * (moved - ramp)[..., 3:13, 3:13].flatten(1)

    # Within an image all pixels move alike, and over images evenly between -2 and 2 pixels of 16.
    assert (inside.max(1).values - inside.min(1).values).max() < 1e-4
    assert 1.9 < inside.max() <= 2.0001
    assert -2.0001 <= inside.min() < -1.9
    assert inside.mean(1).std().item() == pytest.approx(4 / math.sqrt(12), rel=0.1)
    torch.testing.assert_close(MODULE.shifted(ramp, draws, 0.0), ramp)
    # Black moves in: by whole pixels it is the same crop of the padded image.
    assert moved.amin() == 0
    assert moved.amax() <= 15 / 32 + 1e-6


def test_randaugment_comes_before_the_shift(batch: Any):
    x = batch[0].float()
    plain, strong = (
        defense(views=views, shift=0.25).view(state_of(small_network()), x) for views in ("shift", "randaugment")
    )

    draws, again = generator("cpu", 7), generator("cpu", 7)
    assert torch.equal(plain, MODULE.shifted(x, draws, 0.25))
    assert torch.equal(strong, MODULE.shifted(randaugment(x, again, 2, 9), again, 0.25))
    assert (strong - plain).abs().amax() > 0.1
    assert strong.min() >= 0
    assert strong.max() <= 1


def test_two_views_cost_two_batches(batch: Any):
    model, made = small_network(), defense(steps=4)
    with counting(model) as passes:
        made.step(state_of(model), *batch)

    assert (passes.forward / 12, passes.backward / 12) == made.passes() == (10, 10)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"weight": -1.0}, "weight: should be greater"),
        ({"temperature": 0.0}, "temperature: should be greater"),
        ({"shift": 0.7}, "shift: should be less"),
        ({"views": "autoaugment"}, "views: should be 'shift' or 'randaugment'"),
    ],
)
def test_a_field_out_of_range_is_refused(fields: dict[str, Any], line: str):
    with pytest.raises(BadInput, match=line):
        defense(**fields)
