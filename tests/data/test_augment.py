from __future__ import annotations

import pytest
import torch
from torch import Tensor

from advbench.data.augment import augment, crop_flip, cutout
from advbench.data.randaugment import randaugment
from advbench.recipe import CropFlip, Cutout, RandAugment

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def one_by_one(images: Tensor, generator: torch.Generator, pad: int) -> Tensor:
    """The same crops, written the slow way: a canvas, a window and a mirror for each image."""
    n, channels, height, width = images.shape
    tops = torch.randint(2 * pad + 1, (n,), generator=generator, device=images.device)
    lefts = torch.randint(2 * pad + 1, (n,), generator=generator, device=images.device)
    coins = torch.randint(2, (n,), generator=generator, device=images.device)
    out = torch.empty_like(images)
    for i, (top, left, coin) in enumerate(zip(tops.tolist(), lefts.tolist(), coins.tolist(), strict=True)):
        canvas = torch.zeros(channels, height + 2 * pad, width + 2 * pad, dtype=images.dtype, device=images.device)
        canvas[:, pad : pad + height, pad : pad + width] = images[i]
        window = canvas[:, top : top + height, left : left + width]
        out[i] = window.flip(2) if coin else window
    return out


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("shape", "pad"), [((40, 3, 32, 32), 4), ((40, 1, 5, 9), 2), ((7, 2, 3, 1), 6)])
def test_it_is_the_slow_way(device: str, dtype: torch.dtype, shape: tuple[int, ...], pad: int) -> None:
    images = torch.randint(1, 256, shape, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    before = images.clone()
    fast = crop_flip(images, torch.Generator(device).manual_seed(2), pad)
    slow = one_by_one(images, torch.Generator(device).manual_seed(2), pad)
    assert fast.dtype == dtype
    assert fast.is_contiguous()
    assert torch.equal(fast, slow)
    assert torch.equal(images, before)


def test_every_shift_and_both_mirrors_come_equally_often() -> None:
    # The image's position is its brightest pixel's, so each outcome of 9 * 9 * 2 can be read off the result.
    image = torch.zeros(1, 1, 13, 13, dtype=torch.uint8)
    image[0, 0, 6, 4], image[0, 0, 6, 5] = 9, 5
    out = crop_flip(image.expand(16_200, -1, -1, -1), torch.Generator().manual_seed(0))
    nine, five = (out == 9).flatten(1).int().argmax(1), (out == 5).flatten(1).int().argmax(1)
    mirrored = (five - nine == -1).long()
    assert ((five - nine).abs() == 1).all()
    seen = torch.bincount(mirrored * 169 + nine, minlength=2 * 169)
    outcomes = seen[seen > 0]
    assert len(outcomes) == 9 * 9 * 2
    # 100 expected of each; with 162 outcomes the largest deviation stays within 4.5 standard deviations.
    assert (outcomes - 100).abs().max() < 45


def test_no_padding_only_mirrors() -> None:
    images = torch.arange(1, 41, dtype=torch.uint8).view(10, 1, 2, 2)
    out = crop_flip(images, torch.Generator().manual_seed(0), pad=0)
    same = (out == images).flatten(1).all(1)
    assert torch.equal(out[~same], images[~same].flip(3))
    assert 0 < int(same.sum()) < 10


@pytest.mark.parametrize("size", [1, 4, 7, 40])
def test_cutout_blackens_one_square_around_a_random_pixel(size: int) -> None:
    images = torch.full((200, 2, 6, 9), 7, dtype=torch.uint8)
    out = cutout(images, torch.Generator().manual_seed(3), size)

    draw = torch.Generator().manual_seed(3)
    rows, columns = torch.randint(6, (200, 1), generator=draw), torch.randint(9, (200, 1), generator=draw)
    for i, (row, column) in enumerate(zip(rows.flatten().tolist(), columns.flatten().tolist(), strict=True)):
        expected = images[i].clone()
        top, left = row - size // 2, column - size // 2
        expected[:, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = 0
        assert torch.equal(out[i], expected)


def test_a_recipe_is_its_parts_in_order() -> None:
    images = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    recipe = (CropFlip(name="crop-flip", pad=2), Cutout(name="cutout", size=5))

    source = torch.Generator().manual_seed(1)
    expected = cutout(crop_flip(images, source, 2), source, 5)
    assert torch.equal(augment(images, recipe, torch.Generator().manual_seed(1)), expected)
    assert torch.equal(augment(images, (), torch.Generator()), images)


@pytest.mark.parametrize("peak", [None, 200])
def test_randaugment_is_told_its_strength_and_what_is_white(peak: int | None) -> None:
    images = torch.randint(0, 201, (60, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    recipe = (RandAugment(name="randaugment", ops=3, magnitude=17),)
    found = augment(images, recipe, torch.Generator().manual_seed(1), **({} if peak is None else {"peak": peak}))
    assert torch.equal(found, randaugment(images, torch.Generator().manual_seed(1), 3, 17, peak or 255))


def test_crops_are_made_where_the_images_are() -> None:
    # A device of no memory at all stands for an accelerator: it takes no index from another.
    there = crop_flip(torch.empty(4, 3, 8, 8, device="meta"), torch.Generator(), 2)
    assert (there.device.type, there.shape) == ("meta", (4, 3, 8, 8))
    assert cutout(there, torch.Generator(), 3).device.type == "meta"
