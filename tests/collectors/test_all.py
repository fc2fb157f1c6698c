"""What every collector owes to a plan: that it costs what it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from advbench import find
from advbench.collectors.base import Collector, Scene
from advbench.passes import counting

UNSEEN = {"certified", "influence", "param-hessian", "updates"}
"""What they do is no pass through the model as a whole, or not at a moment when a plan could ask."""


@pytest.mark.parametrize("name", sorted(set(find.names(find.PACKAGE / "collectors")) - UNSEEN))
def test_a_collector_costs_what_it_says(scene: Callable[..., Scene], name: str):
    seen = scene(20)
    assert seen.adversarial.shape == seen.x.shape  # made before: all collectors share them
    collector = find.part(Collector, name)()

    with counting(seen.model) as passes:
        collector.collect(seen)

    # One example more is what asks whether the model takes its input at all.
    assert (passes.forward + passes.backward) / 20 == pytest.approx(collector.passes(10), rel=0.03)
