"""Augmentation of a batch on its device: every image draws for itself, from the job's own stream.

Stored images (N, C, H, W) in, the same shape and dtype out; uint8 or floats in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from advbench.data.randaugment import randaugment
from advbench.recipe import Augmentation, CropFlip, Cutout


def augment(images: Tensor, recipe: Sequence[Augmentation], generator: torch.Generator, peak: int = 255) -> Tensor:
    """Every part of `recipe` in turn; `generator` lives on the images' device, `peak` is white where they are uint8."""
    for part in recipe:
        if isinstance(part, CropFlip):
            images = crop_flip(images, generator, part.pad)
        elif isinstance(part, Cutout):
            images = cutout(images, generator, part.size)
        else:
            images = randaugment(images, generator, part.ops, part.magnitude, peak)
    return images


def crop_flip(images: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Each image shifted by up to `pad` pixels, black moving in, and mirrored or not.

    He et al., CVPR 2016 (arXiv 1512.03385), section 4.2: padding on each side, a random crop of the image's own size
    from the padded image or its mirror. Draws, in this order, N rows, N columns and N coins.

    >>> crop_flip(torch.ones(2, 3, 8, 8), torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3, 8, 8])
    """
    n, _, height, width = images.shape
    device = images.device
    top = torch.randint(2 * pad + 1, (n,), generator=generator, device=device)
    left = torch.randint(2 * pad + 1, (n,), generator=generator, device=device)
    mirrored = torch.randint(2, (n,), generator=generator, device=device).bool()

    rows = top[:, None] + torch.arange(height, device=device)
    columns = left[:, None] + torch.arange(width, device=device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    padded = functional.pad(images, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    # Channels last while indexing: one index for each pixel instead of one for each channel of it.
    image = torch.arange(n, device=device)[:, None, None]
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def cutout(images: Tensor, generator: torch.Generator, size: int) -> Tensor:
    """A black square of side `size` around a random pixel of each image, cut off at the border.

    DeVries and Taylor 2017 (arXiv 1708.04552), section 3.2, where the image is normalised and 0 is the mean; here 0 is
    black. Draws N rows and N columns.
    """
    n, _, height, width = images.shape
    device = images.device
    row = torch.randint(height, (n, 1), generator=generator, device=device)
    column = torch.randint(width, (n, 1), generator=generator, device=device)
    inside = [
        (place >= centre - size // 2) & (place < centre - size // 2 + size)
        for place, centre in ((torch.arange(height, device=device), row), (torch.arange(width, device=device), column))
    ]
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0)
