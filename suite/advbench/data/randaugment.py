"""RandAugment for a batch on its device: Cubuk et al., NeurIPS 2020 (arXiv 1909.13719).

torchvision's transform draws once for a whole batch. Here every image draws for itself: images that drew the same
operation with the same sign are gathered, and torchvision's kernel for it runs once on all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

STRONGEST = 30
"""The paper's scale of magnitudes."""


def randaugment(images: Tensor, generator: torch.Generator, ops: int, magnitude: int, peak: int = 255) -> Tensor:
    """`ops` operations on each image, drawn from the paper's 14, each at `magnitude` of 30.

    images (N, C, H, W) uint8 with white at `peak`, or floats in [0, 1]; the same shape and dtype out. Draws for each
    operation N choices and N signs.
    """
    n, width = len(images), images.shape[-1]
    pixels = images.float() / peak if images.dtype == torch.uint8 else images
    kernels = _kernels(magnitude / STRONGEST, width)
    for _ in range(ops):
        choice = torch.randint(len(kernels), (n,), generator=generator, device=images.device)
        sign = torch.randint(2, (n,), generator=generator, device=images.device)
        drawn = pixels.clone()
        # One look at the draws instead of one for each kernel, because a look waits for the device.
        for number in torch.unique(2 * choice + sign).tolist():
            rows = (choice == number // 2) & (sign == number % 2)
            drawn[rows] = kernels[number // 2](pixels[rows], 1 - 2 * (number % 2))
        pixels = drawn
    return (pixels * peak).round_().to(torch.uint8) if images.dtype == torch.uint8 else pixels


Kernel = Callable[[Tensor, int], Tensor]
"""Images in [0, 1] and a sign, +1 or -1, where the operation has a direction."""


def _kernels(share: float, width: int) -> list[Kernel]:
    """The paper's operations at `share` of their full strength, in the ranges of AutoAugment (arXiv 1805.09501)."""
    from torchvision.transforms.v2 import functional as vision  # half a second, and only tasks that augment wait for it

    smooth = vision.InterpolationMode.BILINEAR

    def affine(x: Tensor, *, right: int = 0, down: int = 0, shear: tuple[float, float] = (0, 0)) -> Tensor:
        return vision.affine(x, 0.0, [right, down], 1.0, list(shear), smooth)

    # Shears go up to a slope of 0.3; translations move whole pixels, up to 150 of ImageNet's 331.
    shear, moved = math.degrees(math.atan(0.3 * share)), int(150 / 331 * width * share)
    return [
        lambda x, _: x,
        lambda x, _: vision.autocontrast(x),
        lambda x, _: vision.equalize(x),
        lambda x, sign: vision.rotate(x, 30 * share * sign, smooth),
        lambda x, _: vision.solarize(x, 1 - share),
        lambda x, sign: vision.adjust_saturation(x, 1 + 0.9 * share * sign),
        lambda x, _: vision.posterize(x, 8 - round(4 * share)),
        lambda x, sign: vision.adjust_contrast(x, 1 + 0.9 * share * sign),
        lambda x, sign: vision.adjust_brightness(x, 1 + 0.9 * share * sign),
        lambda x, sign: vision.adjust_sharpness(x, 1 + 0.9 * share * sign),
        lambda x, sign: affine(x, shear=(shear * sign, 0)),
        lambda x, sign: affine(x, shear=(0, shear * sign)),
        lambda x, sign: affine(x, right=moved * sign),
        lambda x, sign: affine(x, down=moved * sign),
    ]
