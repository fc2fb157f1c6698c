"""Lines of a plan made by hand, for tests of what is shown of them."""

from __future__ import annotations

from pathlib import Path

from advbench.plan import Item

ODD = "a[bold]b:smile:"
"""A name that rich would take for markup and an emoji."""


def items(*seconds: float, label: str = "d", **changes: object) -> list[Item]:
    """One seed after another that takes so many seconds."""
    common = {"task": "t", "label": label, "base": Path()} | changes
    return [Item.model_validate({"seed": seed, "seconds": cost, **common}) for seed, cost in enumerate(seconds)]
