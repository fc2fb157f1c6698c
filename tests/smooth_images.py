"""Images as smooth as photographs, and the draws that distort them."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from advbench.distortions import Draws


def draws(count: int = 4) -> Draws:
    """Of the first so many images."""
    return Draws(range(count), torch.device("cpu"))


def smooth(channels: int = 3, height: int = 20, width: int = 20, count: int = 4) -> Tensor:
    """Images as smooth as photographs, from 0 to 1."""
    noise = np.random.default_rng(0).random((count, channels, height, width))
    found = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return torch.from_numpy((found - found.min()) / np.ptp(found)).float()
