"""fgsm-pgi: three epochs by hand with every example in its own place, pieces, and a step that is taken again."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from one_step import EPS, LR, close, defense, network, noise, state_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from advbench import train
from advbench.data.subsets import Subsets
from advbench.defense import TrainState
from advbench.passes import counting
from advbench.spec import BadInput


def by_hand(model: nn.Module, x: Tensor, y: Tensor, prior: Tensor, momentum: Tensor):
    """The loss, and prior and momentum of the next epoch as they are kept."""
    start = (x + prior.double()).requires_grad_()
    before = model(start)
    slope = torch.autograd.grad(cross_entropy(before, y), start, retain_graph=True)[0]
    share = slope / slope.abs().sum((1, 2, 3), keepdim=True)
    momentum = 0.3 * momentum.double() + 64 * share
    moved = ((x + prior + EPS * momentum.sign()).clamp(x - EPS, x + EPS).clamp(0, 1) - x).detach()
    x_adv = (x + prior + EPS * slope.sign()).clamp(x - EPS, x + EPS).clamp(0, 1).detach()
    after = model(x_adv)
    return cross_entropy(after, y) + 10 * mse_loss(after, before), moved.half(), momentum.half()


def rounds(state: TrainState, x: Tensor, y: Tensor):
    """Three epochs in three shuffled batches each: epoch, rows, images and labels, with the state set to them."""
    for epoch in range(3):
        for rows in torch.randperm(12, generator=torch.Generator().manual_seed(epoch)).split(5):
            state.epoch, state.rows, state.examples = epoch, rows, 12
            yield epoch, rows, x[rows], y[rows]


def test_a_prior_follows_its_example_through_shuffled_epochs(batch):
    x, y = batch
    model = network()
    expected_model = copy.deepcopy(model)
    made, state, draws = defense("fgsm-pgi"), state_of(model), noise()
    prior, momentum = torch.zeros(2, 12, 1, 8, 8, dtype=torch.float16)
    for epoch, rows, images, labels in rounds(state, x, y):
        if epoch == 0:
            mine, past = EPS * draws.uniform(images).sign(), torch.zeros_like(images)
        else:
            mine, past = prior[rows].double().clamp(-EPS, EPS), momentum[rows]
        expected, prior[rows], momentum[rows] = by_hand(expected_model, images, labels, mine, past)
        with torch.no_grad():
            grads = torch.autograd.grad(expected, list(expected_model.parameters()))
            for weight, grad in zip(expected_model.parameters(), grads, strict=True):
                weight -= LR * grad

        with counting(model) as passes:
            loss = made.step(state, images, labels)

        assert (passes.forward / len(rows), passes.backward / len(rows)) == made.passes() == (2, 3)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
        assert torch.equal(state.memory["prior"][rows], prior[rows])
        assert close(state.memory["momentum"][rows].double(), momentum[rows].double(), 1e-3)
    assert torch.equal(state.memory["prior"], prior)
    assert len({tuple(one.flatten().tolist()) for one in prior}) == 12
    assert "next" not in state.memory
    assert state.memory["prior"].dtype == torch.float16


def test_in_pieces_every_example_keeps_its_own(batch):
    x, y = batch
    whole, pieces = (state_of(network()) for _ in range(2))
    made = defense("fgsm-pgi")
    for state, micro in ((whole, 0), (pieces, 2)):
        for epoch, _, images, labels in rounds(state, x, y):
            # Signs of the first epoch are drawn for all at once.
            state.micro = micro if epoch else 0
            made.step(state, images, labels)

    assert torch.equal(pieces.memory["prior"], whole.memory["prior"])
    for part, one in zip(pieces.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(part, one, rtol=1e-9, atol=1e-12)


def test_a_step_that_ran_out_of_memory_is_taken_again_from_the_same_priors(tmp_path: Path, make_job, blobs):
    kind, room = type(defense("fgsm-pgi")), [100]

    class Small(kind):
        """From the second epoch on its device holds eight examples."""

        def loss(self, state: TrainState, x: Tensor, y: Tensor) -> Tensor:
            loss = super().loss(state, x, y)
            if state.epoch and len(x) > room[0]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return loss

    kept, job = list[dict[str, Tensor]](), make_job(training={"epochs": 2, "batch": 16})
    sets = Subsets(train=blobs(32), validation=blobs(12, seed=1), test=blobs(3, seed=2))
    for room[0] in (100, 8):
        path = tmp_path / f"{room[0]}.pt"
        train.train(job, sets, Small(), network().float(), path, lambda *news: None)
        kept.append(torch.load(path, weights_only=True)["memory"])

    assert kept[0].keys() == {"prior", "momentum"}
    # fp32 sums of pieces round differently, and a sign of nearly nothing may turn.
    assert (kept[0]["prior"] != kept[1]["prior"]).float().mean() < 0.01


def test_priors_start_anew_every_so_many_epochs_at_a_corner_of_the_ball(batch):
    x, y = batch
    x = 0.3 + 0.4 * x  # no pixel meets the box
    made, state = defense("fgsm-pgi", reset=2), state_of(network(), rows=torch.arange(12), examples=12)
    starts, left = list[Tensor](), list[Tensor]()
    for state.epoch in range(4):
        handle = state.model.register_forward_pre_hook(lambda _, inputs: starts.append(inputs[0].detach() - x))
        made.step(state, x, y)
        handle.remove()
        left.append(state.memory["prior"].double())

    starts = starts[::2]  # each epoch's first pass
    assert all(torch.allclose(starts[epoch].abs(), torch.full_like(x, EPS), rtol=1e-9) for epoch in (0, 2))
    assert not torch.equal(starts[0].sign(), starts[2].sign())
    for epoch in (1, 3):
        torch.testing.assert_close(starts[epoch], left[epoch - 1].clamp(-EPS, EPS), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(starts[2], left[1], atol=EPS / 10)


def test_label_smoothing_is_for_the_weights_alone(batch):
    met = list[Tensor]()
    for smoothing in (0, 0.4):
        state = state_of(network(), smoothing=smoothing)
        state.model.register_forward_pre_hook(lambda _, inputs: met.append(inputs[0].detach()))
        defense("fgsm-pgi").loss(state, *batch)
        assert state.smoothed

    assert torch.equal(torch.stack(met[:2]), torch.stack(met[2:]))


@pytest.mark.parametrize("fields", [{"weight": -1}, {"momentum": -1}, {"reset": 0}, {"step_size": 0}])
def test_what_it_refuses(fields):
    with pytest.raises(BadInput, match="should be"):
        defense("fgsm-pgi", **fields)
