"""Gradients on their way: a quantiser without bias, and the same mean in every process, in fewer bytes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.exchange import BUCKET, LEVELS, Clock, Exchange, dequantise, quantise
from advbench.models.mnist_cnn import MnistCnn
from advbench.parallel import Group


def gaussian(buckets: int, seed: int = 0) -> Tensor:
    return torch.randn(buckets * BUCKET, generator=torch.Generator().manual_seed(seed))


def test_the_quantiser_is_unbiased_on_fixed_projections():
    values, draws = gaussian(8), 200
    directions = torch.randn(20, len(values), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    source = torch.Generator().manual_seed(2)
    sent = torch.stack([dequantise(*quantise(values, source)) for _ in range(draws)]).double()

    errors = (sent - values) @ directions.T
    # Each projection's mean error in units of its own standard error: 20 values of a t distribution around 0.
    score = errors.mean(0) / (errors.std(0) / draws**0.5)
    assert score.abs().max() < 3.5
    assert abs(float(score.mean())) < 3 / 20**0.5


@pytest.mark.parametrize("buckets", [1, 40, 4_000])
def test_the_noise_stays_below_the_signal_however_large_the_layer(buckets: int):
    values = gaussian(buckets)
    noise = dequantise(*quantise(values, torch.Generator().manual_seed(1))) - values

    relative = float(noise.square().sum() / values.square().sum())
    # Alistarh et al., lemma 3.1: at most min(d / s^2, sqrt(d) / s) for d entries with one scale.
    assert relative < min(BUCKET / LEVELS**2, BUCKET**0.5 / LEVELS)


def test_values_on_the_grid_pass_unchanged():
    # A bucket's norm is its only entry, and zero has no sign.
    alone = torch.zeros(2 * BUCKET)
    alone[3] = -0.3
    alone[BUCKET + 5] = 2.0
    for _ in range(20):
        torch.testing.assert_close(dequantise(*quantise(alone)), alone, rtol=1e-6, atol=0)
    assert torch.equal(dequantise(*quantise(torch.zeros(BUCKET))), torch.zeros(BUCKET))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_does_not_become_a_number(bad: float):
    values = gaussian(2)
    values[5] = bad
    back = dequantise(*quantise(values))

    assert not back[:BUCKET].isfinite().any()
    assert back[BUCKET:].isfinite().all()


class FakeEvent:
    """A CUDA event of a device whose clock is `now`, in milliseconds, and that has done all it was given."""

    now = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        self.at = FakeEvent.now

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.at - self.at


def test_on_cuda_the_wait_is_the_device_s_and_not_the_host_s(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: None)
    exchange = object.__new__(Exchange)
    exchange.device, exchange.compression = torch.device("cuda"), "none"
    exchange.begin(torch.Generator(), 0)

    def whole(gradients: Tensor) -> Tensor:
        FakeEvent.now += 30  # the device packs and sends; the host is back at once
        return gradients

    monkeypatch.setattr(exchange, "_whole", whole)
    for backward in (1_000, 2_000):
        FakeEvent.now += backward
        exchange._send(torch.zeros(1))
    FakeEvent.now += 400  # until the last bucket has arrived
    exchange.end()
    FakeEvent.now += 7_000

    assert exchange.waited() == pytest.approx(0.03 + 0.03 + 0.4)


def test_each_process_rounds_by_numbers_of_its_own_and_the_same_ones_again():
    exchange = object.__new__(Exchange)
    exchange.roundings = torch.Generator()

    def drawn(seed: int, rank: int, compression: Any = "int8") -> float:
        exchange.compression, exchange.sent = compression, 7
        exchange.begin(torch.Generator().manual_seed(seed), rank)
        assert exchange.sent == 0
        return float(torch.rand((), generator=exchange.roundings))

    assert drawn(4, 0) == drawn(4, 0)
    assert len({drawn(4, 0), drawn(4, 1), drawn(4, 2), drawn(5, 0)}) == 4
    assert drawn(4, 0, "bf16") != drawn(4, 0, "bf16"), "what is not rounded by chance draws nothing"


def network() -> nn.Module:
    torch.manual_seed(0)
    return MnistCnn().build((1, 28, 28), 10).double()


def gradients(group: Group) -> dict[str, Any]:
    """The mean gradient of the group's batch, as each kind of exchange leaves it in this process."""
    x = torch.rand(12, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found: dict[str, Any] = {}
    for kind in ("none", "bf16", "int8"):
        model = network()
        if group.rank:
            for parameter in model.parameters():
                parameter.data.zero_()  # the first process's weights are everybody's
        exchange = Exchange(model, kind)
        exchange.begin(torch.Generator().manual_seed(4), group.rank)
        clock = Clock(torch.device("cpu"))
        (exchange.model(x[group.rows(12)]).square().mean() * group.weight(12)).backward()
        exchange.end()
        whole = clock.seconds()
        assert 0 < exchange.waited() <= whole
        found[kind] = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found[f"{kind} bytes"] = exchange.sent
    norm = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1)).double()
    local = Exchange(norm, "none")
    for _ in range(2):
        local.model(x.flatten(1)[group.rows(12), :1]).sum().backward()
    found["mean"] = (x.flatten(1)[group.rows(12), 0].mean(), norm[0].running_mean)
    return found


@pytest.mark.parametrize("world", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_process_ends_with_the_same_mean(ranks, world: int):
    alone = network()
    x = torch.rand(12, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    alone(x).square().mean().backward()
    whole = torch.cat([p.grad.flatten() for p in alone.parameters() if p.grad is not None])
    found = ranks(gradients, world)

    def off(kind: str) -> float:
        return float((found[0][kind] - whole).norm() / whole.norm())

    for rank in found:
        # Batch norm's statistics stay each one's own: a tenth of the way from 0, twice.
        torch.testing.assert_close(rank["mean"][1], 0.19 * rank["mean"][0].view(1))
    for rank in found[1:]:
        assert all(torch.equal(rank[kind], found[0][kind]) for kind in ("none", "bf16", "int8"))
    assert off("none") < 1e-12
    assert off("bf16") < 2**-7
    # Rounded twice, each time with at most BUCKET / LEVELS^2 of the squared norm, the first time averaged.
    assert 1e-3 < off("int8") < (2 * BUCKET) ** 0.5 / LEVELS
    # fp32 gradients in a ring: 2 (M - 1) / M of 4 bytes an entry.
    ring = 2 * (world - 1) / world * 4 * len(whole)
    assert found[0]["none bytes"] == pytest.approx(2 * ring, abs=8)  # float64 here
    assert found[0]["bf16 bytes"] == pytest.approx(ring / 2, abs=8)
    assert found[0]["int8 bytes"] <= 0.27 * ring
