"""What nothing could be said about is refused before an attack begins, and what is at the edge is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import usable
from advbench.data.base import Examples
from advbench.spec import BadInput


def examples(labels: list[int]) -> Examples:
    count = len(labels)
    return Examples(torch.zeros(count, 1, 2, 2), torch.tensor(labels, dtype=torch.int64), torch.arange(count), 1)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "no test example to attack"),
        ([0, 3], "a label of 3; with 3 classes labels go from 0 to 2"),
        ([0, -1], "a label of -1; with 3 classes"),
        ([5, -2], "a label of -2; with 3 classes"),
    ],
)
def test_labels_are_of_the_classes(labels: list[int], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        usable.labelled(examples(labels), 3)
    usable.labelled(examples([0, 2]), 3)
    usable.labelled(examples([1]), 3)


@pytest.mark.parametrize("pixel", [-0.001, 1.001, float("nan"), float("inf")])
def test_pixels_lie_in_the_box(pixel: float) -> None:
    with pytest.raises(BadInput, match="they should lie in"):
        usable.pixels(torch.tensor([0.5, pixel]).view(1, 1, 1, 2))
    usable.pixels(torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))


class Net(nn.Module):
    """Answers as it is told, and may say which images it refuses."""

    def __init__(self, answer: Any, score: Any = None) -> None:
        super().__init__()
        self.answer = answer
        if score is not None:
            self.reject = lambda x: score

    def forward(self, x: Tensor) -> Any:
        assert not torch.is_grad_enabled()
        return self.answer


RIGHT = torch.zeros(4, 3)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Net((RIGHT, RIGHT)), "answers with a tuple; it should answer with a tensor of logits"),
        (Net(torch.zeros(4, 2)), r"answers 4 images with \(4, 2\); it should be \(4, 3\)"),
        (Net(torch.zeros(3, 3)), r"answers 4 images with \(3, 3\)"),
        (Net(RIGHT.double()), "answers in float64; verdicts are float32"),
        (Net(RIGHT, "no"), r"reject answers 4 images with str; it should be a score each, \(4,\)"),
        (Net(RIGHT, torch.zeros(4, 1)), r"reject answers 4 images with \(4, 1\)"),
    ],
)
def test_a_model_answers_with_float32_logits_of_every_class(model: nn.Module, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        usable.logits(model, torch.zeros(4, 1, 2, 2), 3)


@pytest.mark.parametrize("model", [Net(RIGHT), Net(RIGHT, torch.zeros(4))])
def test_what_answers_so_is_usable_with_a_detector_and_without(model: nn.Module) -> None:
    usable.logits(model, torch.zeros(4, 1, 2, 2), 3)
