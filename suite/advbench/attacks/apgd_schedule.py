"""When APGD reconsiders its step sizes, and its radii in L1. Croce and Hein, arXiv 2003.01690 and 2103.01208."""

from __future__ import annotations

import math

from advbench.threat import Norm


def radii(norm: Norm, steps: int) -> list[tuple[int, int]]:
    """(radius in eps, steps there), one after the other: in L1 3, 2 and 1 eps with 30, 30 and 40 % of the steps."""
    if norm != "L1":
        return [(1, steps)]
    first = math.ceil(0.3 * steps)
    second = min(first, steps - first)
    return [(3, first), (2, second), (1, steps - first - second)]


def checkpoints(norm: Norm, steps: int) -> dict[int, int]:
    """After which steps the step sizes are reconsidered, each with the number of steps since the one before.

    After 22 % of the steps, then after 3 % fewer each time and never fewer than 6 %; in L1 after every 4 %.
    """
    share, less, least = (0.22, 0.03, 0.06) if norm != "L1" else (0.04, 0, 0.04)
    window, shrink, floor = (max(int(part * steps), 1) for part in (share, less, least))
    found: dict[int, int] = {}
    step = window
    while step <= steps:
        found[step] = window
        window = max(window - shrink, floor)
        step += window
    return found
