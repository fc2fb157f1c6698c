"""Common corruptions and the published strength of each: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).

The authors made three sets, each for images of one side: CIFAR-10-C (32 pixels), Tiny-ImageNet-C (64) and ImageNet-C
(224). The numbers are those of their generators (github.com/hendrycks/robustness), and images of any other side meet
those of the set whose side is nearest. Fourteen of the fifteen are here: `frost` lays photographs of frozen windows
over an image, and these are not ours to give.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from advbench.spec import BadInput, did_you_mean

SEVERITIES = (1, 2, 3, 4, 5)

Strength = tuple[float, ...]

_WIDE = 244 / 224
"""ImageNet-C's elastic transform counts in 244ths of a side of 224 pixels: a slip of its authors, kept by all."""

PUBLISHED: dict[int, dict[str, Sequence[Strength]]] = {
    32: {
        "gaussian-noise": [(0.04,), (0.06,), (0.08,), (0.09,), (0.10,)],
        "shot-noise": [(500,), (250,), (100,), (75,), (50,)],
        "impulse-noise": [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)],
        "defocus-blur": [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        "glass-blur": [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        "motion-blur": [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        "zoom-blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        "snow": [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        "fog": [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        "brightness": [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)],
        "contrast": [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)],
        "elastic-transform": [
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ],
        "pixelate": [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)],
        "jpeg-compression": [(80,), (65,), (58,), (50,), (40,)],
    },
    64: {
        "gaussian-noise": [(0.04,), (0.08,), (0.12,), (0.15,), (0.18,)],
        "shot-noise": [(250,), (100,), (50,), (30,), (15,)],
        "impulse-noise": [(0.01,), (0.02,), (0.05,), (0.08,), (0.14,)],
        "defocus-blur": [(0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)],
        "glass-blur": [(0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)],
        "motion-blur": [(10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)],
        "zoom-blur": [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        "snow": [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ],
        "fog": [(0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)],
        "brightness": [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
        "contrast": [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
        "elastic-transform": [
            (0, 0, 0.08),
            (0.05, 0.3, 0.06),
            (0.1, 0.08, 0.06),
            (0.1, 0.03, 0.03),
            (0.16, 0.03, 0.02),
        ],
        "pixelate": [(0.9,), (0.8,), (0.7,), (0.6,), (0.5,)],
        "jpeg-compression": [(65,), (58,), (50,), (40,), (25,)],
    },
    224: {
        "gaussian-noise": [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)],
        "shot-noise": [(60,), (25,), (12,), (5,), (3,)],
        "impulse-noise": [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)],
        "defocus-blur": [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
        "glass-blur": [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
        "motion-blur": [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
        "zoom-blur": [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
        "snow": [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
        "fog": [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
        "brightness": [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)],
        "contrast": [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)],
        "elastic-transform": [
            (2 * _WIDE, 0.7 * _WIDE, 0.1 * _WIDE),
            (2 * _WIDE, 0.08 * _WIDE, 0.2 * _WIDE),
            (0.05 * _WIDE, 0.01 * _WIDE, 0.02 * _WIDE),
            (0.07 * _WIDE, 0.01 * _WIDE, 0.02 * _WIDE),
            (0.12 * _WIDE, 0.01 * _WIDE, 0.02 * _WIDE),
        ],
        "pixelate": [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)],
        "jpeg-compression": [(25,), (18,), (15,), (10,), (7,)],
    },
}
"""By side, corruption and severity; what the numbers are says the function of that name in `distortions`."""

NAMES = tuple(PUBLISHED[32])
SMALLEST = 8
"""Pixels: the least side on which a corruption is still one."""
LEAST = {"zoom-blur": 16}
"""Those that need more: it zooms by whole pixels, and its first severities would leave a smaller image as it is."""


def known(names: Sequence[str]) -> None:
    """Raises ValueError, in the words of a task file, unless `names` are distinct corruptions and at least one."""
    if not names:
        raise ValueError('should name at least one corruption, or say "all"')
    for name in names:
        if name == "frost":
            raise ValueError("'frost' needs its authors' photographs, which advbench does not have; leave it out")
        if name not in NAMES:
            raise ValueError(f"no corruption '{name}'{did_you_mean(name, NAMES)}")
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise ValueError(f"corruption '{twice[0]}' stands there twice")


def fitting(names: Sequence[str] | str, side: int) -> tuple[str, ...]:
    """Those of `names` that images of that shorter `side` in pixels meet; "all" is every one that they can.

    Raises BadInput when one of the names cannot be.
    """
    if names == "all":
        found = tuple(name for name in NAMES if side >= LEAST.get(name, SMALLEST))
        if not found:
            raise BadInput(f"evaluation.corruptions: images need {SMALLEST} pixels a side, not {side}; leave it out")
        return found
    for name in names:
        if side < (least := LEAST.get(name, SMALLEST)):
            raise BadInput(
                f"evaluation.corruptions: {name} needs images of {least} pixels or more, not {side}; leave it out"
            )
    return tuple(names)


def strength(name: str, severity: int, side: int) -> Strength:
    """The published parameters for images of that shorter `side`, of the set whose side is nearest by ratio."""
    nearest = min(PUBLISHED, key=lambda published: abs(math.log(side / published)))
    return PUBLISHED[nearest][name][severity - 1]
