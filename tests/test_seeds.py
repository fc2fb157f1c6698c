"""One seed, many streams: stable, independent, and the same numbers whatever the batch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from advbench.seeds import BlockNoise, Stream, derive, generator, own_streams


def test_derive_never_changes():
    # The first 8 bytes of sha256("0/train/attack"), halved. A change here changes every result.
    assert derive(0, "train", "attack") == 669213170082611344


def test_derive_fits_a_generator_and_has_no_collision_among_many():
    seeds = {derive(seed, name, i) for seed in range(10) for name in ("a", "b") for i in range(200)}

    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "ab", "c") != derive(0, "a", "bc")


def test_streams_are_repeatable_and_do_not_correlate():
    def draw(*names: str | int) -> torch.Tensor:
        return Stream(generator("cpu", 0, *names)).normal(torch.zeros(20_000, dtype=torch.float64))

    assert torch.equal(draw("attack", 1), draw("attack", 1))
    streams = torch.stack([draw("attack", 1), draw("attack", 2), draw("order", 1)])
    off = torch.corrcoef(streams)[~torch.eye(3, dtype=torch.bool)]
    assert off.abs().max() < 4 / 20_000**0.5


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Stream(generator("cpu", 0, "a")).uniform(torch.zeros(5))

    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(Stream(generator("cpu", 0, "a")).uniform(torch.zeros(5)), first)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_shape_and_type_of_the_batch_and_the_right_moments(kind, dtype):
    x = torch.zeros(500, 3, 8, 8, dtype=dtype)

    noise = getattr(Stream(generator("cpu", 0)), kind)(x)

    assert noise.shape == x.shape
    assert noise.dtype == dtype
    variance = 1 / 3 if kind == "uniform" else 1.0
    assert abs(noise.mean().item()) < 4 * (variance / x.numel()) ** 0.5
    assert noise.var().item() == pytest.approx(variance, rel=0.02)


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("batch", [17, 64, 500])
def test_an_example_meets_the_same_numbers_whatever_the_batch_size(kind, batch):
    x = torch.zeros(500, 2, 3)
    device = torch.device("cpu")

    def draws(rows: torch.Tensor) -> torch.Tensor:
        noise = BlockNoise(device, 7, len(x), rows)
        # Two draws: the second must not depend on the batch either.
        return torch.stack([getattr(noise, kind)(x[rows]), getattr(noise, kind)(x[rows])], dim=1)

    whole = draws(torch.arange(500))
    pieces = torch.cat([draws(rows) for rows in torch.arange(500).split(batch)])

    assert torch.equal(pieces, whole)
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_an_example_meets_the_same_numbers_whoever_else_still_stands():
    x = torch.zeros(50, 4)
    device = torch.device("cpu")
    whole = BlockNoise(device, 7, 50, torch.arange(50)).normal(x)
    standing = torch.tensor([41, 3, 12])

    assert torch.equal(BlockNoise(device, 7, 50, standing).normal(x[standing]), whole[standing])


def test_those_that_leave_take_nobody_else_s_numbers():
    x = torch.zeros(50, 4)
    noise = BlockNoise(torch.device("cpu"), 7, 50, torch.arange(50))
    whole = BlockNoise(torch.device("cpu"), 7, 50, torch.arange(50))
    first = noise.uniform(x)
    kept = torch.arange(50) % 3 == 0
    rest = noise.some(kept)

    assert torch.equal(first, whole.uniform(x))
    assert torch.equal(rest.uniform(x[kept]), whole.uniform(x)[kept])
    # Once more from those that are left: the stream is one.
    assert torch.equal(rest.some(torch.tensor([2])).normal(x[:1]), whole.normal(x)[[6]])


def states() -> list[object]:
    return [random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()]


def test_code_that_is_not_ours_draws_from_the_seed_and_the_streams_go_back():
    seed = 2**40 + 5
    before = states()
    with own_streams(seed):
        drawn = random.random(), np.random.rand(), torch.rand(()).item()

    assert states() == before
    # numpy takes 32 bits.
    expected = torch.rand((), generator=torch.Generator().manual_seed(seed)).item()
    assert drawn == (random.Random(seed).random(), np.random.RandomState(5 + 2**40 % 2**32).rand(), expected)


def test_the_streams_go_back_too_where_that_code_fails():
    def fails() -> None:
        with own_streams(1):
            random.random()
            np.random.rand()
            torch.rand(())
            raise ZeroDivisionError

    before = states()
    with pytest.raises(ZeroDivisionError):
        fails()
    assert states() == before


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_processes_that_share_a_batch_draw_together_what_one_draws_alone(kind):
    x, parts = torch.zeros(10, 3), (slice(0, 4), slice(4, 10))
    source = torch.Generator().manual_seed(derive(0, "a"))
    alone = Stream(generator("cpu", 0, "a"))
    streams = [Stream(generator("cpu", 0, "a")) for _ in parts]
    for rank, (stream, rows) in enumerate(zip(streams, parts, strict=True)):
        stream.share(rank, 2, rows, len(x))

    for _ in range(2):
        whole = getattr(alone, kind)(x)
        bare = torch.empty_like(x)
        own = bare.uniform_(-1, 1, generator=source) if kind == "uniform" else bare.normal_(generator=source)
        assert torch.equal(whole, own)
        for stream, rows in zip(streams, parts, strict=True):
            assert torch.equal(getattr(stream, kind)(x[rows]), whole[rows])
    # Pieces of the parts meet numbers of nobody else, and what comes after them is one stream again.
    one, other = (getattr(stream, kind)(x[:2]) for stream in streams)
    assert not torch.equal(one, other)
    after = [getattr(stream, kind)(x[rows]) for stream, rows in zip(streams, parts, strict=True)]
    torch.randint(2**62, (1,), generator=alone.generator)
    assert torch.equal(torch.cat(after), getattr(alone, kind)(x))
