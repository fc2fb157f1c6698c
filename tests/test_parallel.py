"""Groups: parts that cover a batch, sums and means over processes, batch norm over all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.parallel import ALONE, Group, synchronise
from advbench.seeds import Stream, generator
from advbench.spec import BadInput


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [7, 8, 64, 129])
def test_parts_cover_a_batch_evenly_and_weigh_what_they_hold(world: int, count: int):
    groups = [Group(rank, world) for rank in range(world)]
    rows = torch.arange(count)
    parts = [rows[group.rows(count)] for group in groups]

    assert torch.equal(torch.cat(parts), rows)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    # The weighted mean over processes of the means of the parts is the mean of the whole.
    values = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(count))
    mean = sum(group.weight(count) * values[group.rows(count)].mean() for group in groups) / world
    assert mean == pytest.approx(float(values.mean()), rel=1e-12)


def test_a_group_of_one_says_what_it_is_told():
    assert ALONE.total([1.5, 2]) == [1.5, 2]
    assert ALONE.told("x") == "x"
    assert ALONE.rows(5) == slice(0, 5)
    assert ALONE.first


def noises(group: Group, count: int) -> tuple[Tensor, Tensor]:
    """What a group's rank draws, twice, for its part of a batch."""
    stream = Stream(generator("cpu", 0, "x"))
    stream.share(group.rank, group.world, group.rows(count), count)
    part = torch.zeros(count, 3)[group.rows(count)]
    return stream.uniform(part), stream.uniform(part)


@pytest.mark.parametrize("world", [2, 3])
def test_noise_belongs_to_the_example_and_not_to_the_process(world: int):
    whole = Stream(generator("cpu", 0, "x"))
    x = torch.zeros(16, 3)
    drawn = [noises(Group(rank, world), 16) for rank in range(world)]

    for turn in range(2):
        assert torch.equal(torch.cat([both[turn] for both in drawn]), whole.uniform(x))


def test_pieces_of_a_part_meet_different_numbers_in_every_process():
    pieces: list[Tensor] = []
    for rank in range(2):
        stream = Stream(generator("cpu", 0, "x"))
        stream.share(rank, 2, Group(rank, 2).rows(16), 16)
        pieces += [stream.normal(torch.zeros(4, 3)), stream.normal(torch.zeros(4, 3))]

    assert len(torch.cat(pieces).unique()) == 4 * 4 * 3


def test_pieces_of_unequal_parts_leave_all_generators_equal():
    streams = [Stream(generator("cpu", 0, "x")) for _ in range(2)]
    drawn: list[Tensor] = []
    for rank, stream in enumerate(streams):
        rows = Group(rank, 2).rows(11)
        stream.share(rank, 2, rows, 11)
        for piece in torch.zeros(11, 3)[rows].split(4):  # 4 and 1 of five, 4 and 2 of six
            drawn += [stream.uniform(piece), stream.uniform(piece)]

    one, other = (stream.generator.get_state() for stream in streams)
    assert torch.equal(one, other)
    assert len(torch.cat(drawn).unique()) == 2 * 11 * 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Softplus(), nn.Flatten(), nn.Linear(16, 3)).double()


def batch() -> Tensor:
    return torch.rand(11, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def one_step(model: nn.Module, x: Tensor, weight: float = 1) -> Tensor:
    x = x.clone().requires_grad_()
    (model(x).square().mean() * weight).backward()
    assert x.grad is not None
    return x.grad


def together(group: Group) -> dict[str, Any]:
    """One step of a synchronised network on unequal parts, in each process."""
    model = network()
    synchronise(model)
    x = batch()[group.rows(11)]
    to_input = one_step(model, x, group.weight(11))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    group.average(gradients)
    return {
        "gradients": gradients,
        # The mean over processes of weighted means is the whole batch's mean, so a process's share is `world` times it.
        "input": to_input / group.world,
        "buffers": dict(model.named_buffers()),
        "total": group.total([group.rank + 1.0, 2.0**25 + group.rank]),
        "heard": group.heard([group.rank]),
        "told": group.told({"by": group.rank}),
    }


def test_three_processes_with_synchronised_batch_norm_are_one(ranks):
    alone = network()
    to_input = one_step(alone, batch())
    found = ranks(together, 3)

    for rank in found:
        for mine, whole in zip(rank["gradients"], alone.parameters(), strict=True):
            torch.testing.assert_close(mine, whole.grad, rtol=1e-12, atol=1e-14)
        for name, value in alone.named_buffers():
            torch.testing.assert_close(rank["buffers"][name], value, rtol=1e-12, atol=1e-14)
        assert rank["total"] == [6.0, 3 * 2.0**25 + 3], "no float32 could hold it"
        assert rank["heard"] == [[0], [1], [2]]
        assert rank["told"] == {"by": 0}
    torch.testing.assert_close(torch.cat([rank["input"] for rank in found]), to_input, rtol=1e-12, atol=1e-14)


def test_a_synchronised_network_keeps_its_names_and_judges_as_before():
    plain, changed = network().eval(), network().eval()
    synchronise(changed)

    assert list(changed.state_dict()) == list(plain.state_dict())
    assert torch.equal(changed(batch()), plain(batch()))


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(4), type("BatchNormAct2d", (nn.BatchNorm2d,), {})(4)])
def test_batch_norm_that_cannot_be_synchronised_is_refused_by_name(norm: nn.Module):
    model = nn.Sequential(nn.BatchNorm2d(4), norm)

    with pytest.raises(BadInput, match=rf"has {type(norm).__name__}; leave it out"):
        synchronise(model)
    assert type(model[0]) is nn.BatchNorm2d
