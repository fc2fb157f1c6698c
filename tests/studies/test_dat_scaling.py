"""Accumulated workers against one batch and against the real exchange's bytes; and its claims fail when spoilt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import exchange
from advbench.data.digits import Digits
from advbench.defense import TrainState
from advbench.exchange import BUCKET, LEVELS, Exchange
from advbench.find import build
from advbench.recipe import Training
from advbench.seeds import Stream
from advbench.spec import BadInput
from advbench.studies.dat_scaling import DatScaling
from advbench.task import Data
from advbench.threat import Threat
from advbench.tutor import baseline

from small_studies import claims_of, setting_of  # isort: skip

FEW = Data(name="digits", train=512)
SMALL: dict[str, Any] = {"hidden": (64,), "workers": (1, 8), "batch": 16, "epochs": 10}


def gradients(study: DatScaling, defense: Any, workers: int) -> tuple[Tensor, nn.Module, Tensor, Tensor]:
    """Of 23 examples, which 4 workers cannot share evenly, in float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 3)).double()
    x, y = torch.rand(23, 1, 4, 4, dtype=torch.float64), torch.arange(23) % 3
    state = TrainState(
        model, torch.optim.SGD(model.parameters()), Threat("Linf", 0.1), Stream(torch.Generator().manual_seed(0))
    )
    found, loss = study.shared(defense, state, x, y, workers)
    assert float(loss) == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-12)
    return found, model, x, y


@pytest.mark.parametrize("workers", [1, 4, 23, 40])
def test_the_mean_of_the_workers_gradients_is_that_of_the_batch(workers: int):
    found, model, x, y = gradients(DatScaling(), baseline("standard"), workers)
    whole = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))

    assert len(found) == min(workers, 23)
    assert torch.allclose(found.mean(0), torch.cat([part.flatten() for part in whole]), rtol=0, atol=1e-14)


def test_workers_start_their_attacks_at_points_of_their_own():
    """Two that are given the same example do not find the same gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Softplus(), nn.Linear(8, 3))
    x, study = torch.rand(1, 1, 4, 4).expand(2, 1, 4, 4), DatScaling()
    state = TrainState(
        model, torch.optim.SGD(model.parameters()), Threat("Linf", 0.3), Stream(torch.Generator().manual_seed(0))
    )

    one, other = study.shared(study.defense("LAMB"), state, x, torch.zeros(2, dtype=torch.int64), 2)[0]

    assert not torch.equal(one, other)


@pytest.mark.parametrize("workers", [2, 16])
@pytest.mark.parametrize("count", [3_000, 85_002])
def test_bytes_are_those_that_the_exchange_counts(monkeypatch: pytest.MonkeyPatch, workers: int, count: int):
    """Its own code, with a network that brings everybody this process's message back."""

    class Done:
        def __init__(self, message: Tensor) -> None:
            self.message = message

        def get_future(self):
            future = torch.futures.Future()
            future.set_result([self.message])
            return future

    monkeypatch.setattr(exchange.dist, "get_world_size", lambda: workers)
    monkeypatch.setattr(exchange.dist, "all_to_all_single", lambda heard, message: heard.copy_(message))
    monkeypatch.setattr(exchange.dist, "all_gather_into_tensor", lambda heard, message: heard.copy_(message))
    monkeypatch.setattr(exchange.dist, "all_reduce", lambda message, async_op: Done(message))
    sender = Exchange.__new__(Exchange)
    sender.roundings, sender.compression = torch.Generator(), "none"

    for bits, send in ((8, sender._in_8_bits), (32, sender._whole)):
        sender.sent = 0
        send(torch.randn(count))
        assert DatScaling().sent(count, workers, bits) == sender.sent


def test_8_bits_are_the_mean_on_average_and_within_two_roundings():
    study, source = DatScaling(), torch.Generator().manual_seed(0)
    given = torch.randn(4, 700, generator=source)

    drawn = torch.stack([study.combined(given, "LAMB, 8 bits", source) for _ in range(400)])

    assert torch.equal(study.combined(given, "LAMB", source), given.mean(0))
    step = given.norm(dim=1).max() / LEVELS
    assert float((drawn - given.mean(0)).abs().max()) < 2 * step
    # A rounding's variance is at most a quarter of a step's square; two roundings, five standard deviations.
    assert float((drawn.mean(0) - given.mean(0)).abs().max()) < 5 * step * (0.5 / 400) ** 0.5


def test_a_step_of_lamb_is_as_long_as_its_rate_says_whatever_the_gradient_is():
    model, study = nn.Linear(6, 4), DatScaling()
    before = [weight.detach().clone() for weight in model.parameters()]
    optimizer = study.defense("LAMB").optimizer(model, Training(epochs=1, lr=study.rate("LAMB", 16)))
    for weight in model.parameters():
        weight.grad = 1e-3 * torch.randn_like(weight)

    optimizer.step()

    for weight, old in zip(model.parameters(), before, strict=True):
        assert float((weight.detach() - old).norm() / old.norm()) == pytest.approx(0.04, rel=1e-4)


def test_every_number_that_is_claimed_is_measured():
    found = DatScaling(hidden=(4,), workers=(1, 2), epochs=1, batch=200).run(setting_of(DatScaling, data=FEW))

    assert {claim.name for claim in DatScaling.claims} <= found.values.keys()
    assert {len(values) for values in found.arrays.values()} == {2}


class NoTrustRatio(DatScaling):
    """LAMB's rate without the length that it is a share of, and everybody's message to everybody."""

    def defense(self, way):
        return super().defense("SGD")

    def sent(self, count, workers, bits):
        return super().sent(count, workers, bits) * (workers if bits == 8 else 1)


class Nearest(DatScaling):
    """Rounded half a level up, as the authors' quantiser is on today's torch."""

    def rounded(self, gradient, generator):
        return super().rounded(gradient, generator) + (gradient > 0) * gradient.view(-1, BUCKET).norm(
            dim=1
        ).repeat_interleave(BUCKET) / (2 * LEVELS)


class Lost(DatScaling):
    """One level in the place of 127: the sign of an entry in units of its bucket's norm, or nothing."""

    def rounded(self, gradient, generator):
        norms = gradient.view(-1, BUCKET).norm(dim=1).repeat_interleave(BUCKET)
        kept = torch.rand(gradient.shape, generator=generator) < gradient.abs() / norms.clamp_min(1e-30)
        return norms * gradient.sign() * kept


@pytest.mark.slow
def test_lamb_without_its_trust_ratio_and_a_gather_of_all_fail():
    held = claims_of(NoTrustRatio(**SMALL), seeds=3, data=FEW)

    assert held["layerwise_gain"] == "does not hold"
    assert held["bytes_share"] == "does not hold"
    assert held["bias"] == held["variance_share"] == "holds"


def test_a_biased_quantiser_fails():
    assert claims_of(Nearest(hidden=(64,), workers=(1, 8), batch=16, epochs=1), data=FEW)["bias"] == "does not hold"


@pytest.mark.slow
def test_one_level_fails():
    held = claims_of(Lost(**SMALL), seeds=3, data=FEW)

    assert held["variance_share"] == "does not hold"
    assert held["quantised_cost"] != "holds"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"workers": [0, 2]}, "workers should hold numbers that rise"),
        ({"workers": [4, 4]}, "workers should hold numbers that rise"),
        ({"batch": 0}, "batch"),
        ({"hidden": [0]}, "hidden"),
        ({"norm": "L0"}, "norm"),
    ],
)
def test_sizes_of_zero_and_unknown_norms_are_refused(fields: dict[str, object], said: str):
    with pytest.raises(BadInput, match=said) as told:
        build(DatScaling, fields, "study")

    assert len(told.value.lines) == 1


def test_more_than_the_training_examples_are_refused():
    with pytest.raises(BadInput, match="64 workers of 32 examples are more than the 1,437 training examples"):
        DatScaling(workers=(1, 64)).fit(Digits().load(None))  # type: ignore[arg-type]
    DatScaling(workers=(1, 3), batch=479).fit(Digits().load(None))  # type: ignore[arg-type]
