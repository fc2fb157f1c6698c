"""What the tests of single defenses are given."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import Tensor

from advbench.data.base import Examples


@pytest.fixture
def batch(blobs: Callable[..., Examples]) -> tuple[Tensor, Tensor]:
    """Twelve images in float64, and their labels."""
    data = blobs(12)
    return data.pixels(slice(None)).double(), data.labels
