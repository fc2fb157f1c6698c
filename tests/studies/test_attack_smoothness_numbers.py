"""What a run of attack-smoothness makes of its parts, made up here: its numbers can be written down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advbench.studies.attack_smoothness import AttackSmoothness

from small_studies import about, few, numbers  # isort: skip


def test_its_numbers_are_slopes() -> None:
    power = {"Linf, linear": -0.875, "L2, linear": 0.0625, "Linf, network": -0.5, "L2, network": -0.125}
    met = dict[str, Any]()

    class Made(AttackSmoothness):
        def linear(self, x: Tensor, y: Tensor, way: Tensor, setting: Any) -> Any:
            met.update(x=x, y=y, way=way)
            return {name: 3 * way**slope for name, slope in power.items() if "linear" in name}, 0.25

        def trained(self, x: Tensor, y: Tensor, setting: Any) -> Tensor:
            met.update(whole=x, labels=y)
            return torch.ones(1)

        def network(self, theta: Tensor, x: Tensor, y: Tensor, way: Tensor, setting: Any) -> Any:
            met.update(seen=x, told=y)
            return {name: 2 * way**slope for name, slope in power.items() if "network" in name}

    found = Made(shortest=1e-3, longest=1e-1, ways=5, examples=7).run(few(Made, train=60))

    assert numbers(found) == about(
        {
            "linf_slope_off": 0.125,
            "l2_slope_off": 0.0625,
            "limit_error": 0.25,
            "network_contrast": -0.375,
            "network_l2_slope_off": 0.125,
            "network_linf_slope": -0.5,
        }
    )
    assert found.arrays["x"].tolist() == about([10**power for power in (-3, -2.5, -2, -1.5, -1)])
    # The linear model has the classes 0 and 1, called -1 and 1; the network some of all images.
    zeros_and_ones = met["labels"] < 2
    assert torch.equal(met["x"], met["whole"][zeros_and_ones])
    assert met["y"].tolist() == [{0: -1, 1: 1}[label] for label in met["labels"][zeros_and_ones].tolist()]
    rows = [int((met["whole"] == one).all(1).nonzero()[0]) for one in met["seen"]]
    assert len({*rows}) == 7
    assert met["told"].tolist() == met["labels"][rows].tolist()
