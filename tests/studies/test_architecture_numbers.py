"""What a run of architecture makes of its parts, made up here, and what it calls small and idle."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from advbench.studies.architecture import Architecture, _idle

from small_studies import about, few, lines, numbers  # isort: skip

GAPS = {
    "wide perceptron": (0.2, 0.3),
    "deep perceptron": (0.1, 0.2),
    "wide convnet": (0.05, 0.05),
    "deep convnet": (0.3, 0.1),
    "5x5 convnet": (0.0, 0.4),
    "batch-norm convnet": (0.15, 0.25),
}
"""Of both draws."""
LEFT = dict(zip(GAPS, ((0.5, 0.4), (0.3, 0.1), (0.6, 0.6), (0.2, 0.3), (0.7, 0.5), (0.1, 0.05)), strict=True))
"""What is robust of the test images."""
GONE = dict(zip(GAPS, ((0.1, 0.3), (0.5, 0.5), (0.2, 0.0), (0.7, 0.1), (0.6, 0.8), (0.9, 0.1)), strict=True))
"""Small weights."""


def test_its_numbers_are_means_over_draws_and_differences_of_shapes():
    asked = list[Any]()

    class Made(Architecture):
        def _taught(self, name: str, draw: int, looks: list[int], threat: Any, setting: Any) -> Any:
            asked.append((name, draw, looks))
            model = nn.Linear(9, 95 if name == "5x5 convnet" else 100)  # 950 and 1,000 numbers
            model.said = GONE[name][draw]  # type: ignore[assignment]
            test = LEFT[name][draw]
            last = (test + GAPS[name][draw], test)
            return model, [(0.9, 0.8), (0.9, 0.7), last][-len(looks) :]

        def sparsity(self, model: Any) -> float:
            return model.said

    found = Made(parameters=1000, epochs=7, judged=8).run(few(Made, train=40, test=12))

    gap, left, gone = ({name: sum(of[name]) / 2 for name in GAPS} for of in (GAPS, LEFT, GONE))
    nets = [name for name in GAPS if "convnet" in name]
    assert numbers(found) == about(
        {
            "least_learned": 0.25,  # batch-norm convnet in the first draw, 0.1 and a gap of 0.15
            "unmatched": 0.05,
            "order_repeats": spearmanr([one for one, _ in GAPS.values()], [two for _, two in GAPS.values()]).statistic,
            "sparsity_correlation": spearmanr([*gone.values()], [*gap.values()]).statistic,
            "convolution_gain": (0.25 + 0.15) / 2 - sum(gap[name] for name in nets) / 4,
            "width_gain": (left["wide perceptron"] + left["wide convnet"]) / 2
            - (left["deep perceptron"] + left["deep convnet"]) / 2,
            **{
                f"{what}_{name.replace(' ', '_')}": value
                for what, of in (("gap", gap), ("robust", left), ("sparsity", gone))
                for name, value in of.items()
            },
        }
    )
    # Thirds of seven epochs; of the second draw only the end is looked at.
    assert lines(found) == {"x": [2, 5, 7]} | {name: about([0.1, 0.2, of[0]]) for name, of in GAPS.items()}
    assert asked == [(name, draw, [7] if draw else [2, 5, 7]) for name in GAPS for draw in (0, 1)]
    assert found.notes == ("2 trainings of each; 8 training images judged",)


def test_a_network_is_idle_below_twice_chance():
    assert _idle([0.2, 0.19, 0.9, 0.0], 10) == ("in some seed 2 of 4 networks learned nothing",)
    assert _idle([0.2, 0.9], 10) == ()


def test_a_weight_is_small_below_a_tenth_of_its_layer():
    first, second = nn.Linear(2, 2), nn.Linear(2, 1)
    with torch.no_grad():
        # Their root mean squares are 5 and sqrt(1 / 2).
        first.weight.copy_(torch.tensor([[0.49, 0.51], [7.07, 7.07]]))
        second.weight.copy_(torch.tensor([[1.0, 0.0]]))
        first.bias.zero_()

    assert Architecture().sparsity(nn.Sequential(first, second)) == pytest.approx(2 / 6)


@pytest.mark.parametrize(("parameters", "width"), [(1_000, 13), (1_022, 13), (1_023, 14), (1_060, 14), (9_010, 120)])
def test_a_width_is_the_nearest_to_the_parameters_asked_for(parameters: int, width: int):
    """A perceptron of 64 pixels and 10 classes has 75 numbers a unit and 10 more: 985 of 13, 1,060 of 14."""
    assert Architecture(parameters=parameters).width("wide perceptron", (1, 8, 8), 10) == width
