"""Random crops and mirrors for a batch on its device, as the CIFAR-10 training recipes use them.

He et al., CVPR 2016 (arXiv 1512.03385), section 4.2: four pixels of padding on each side, a random crop of the
image's own size from the padded image or its mirror.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def crop_flip(images: Tensor, generator: torch.Generator, pad: int = 4) -> Tensor:
    """Each image (of N, C, H, W; any dtype) shifted by up to `pad` pixels, black moving in, and mirrored or not.

    `generator` lives on the images' device and gives, in this order, N rows, N columns and N coins.

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
