"""A model that was trained elsewhere is tried on a few images, and a line says what is wrong with its answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench.outside import check
from advbench.spec import BadInput

IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Odd(nn.Module):
    """A linear model with one thing wrong about it."""

    def __init__(self, wrong: str = "") -> None:
        super().__init__()
        self.wrong = wrong
        self.head = nn.Linear(16, 4, device="meta" if wrong == "meta" else None)
        self.aside = [torch.ones(4, device="meta")]

    def forward(self, x: Tensor) -> Any:
        if self.wrong == "in place":
            with torch.no_grad():
                x.sub_(0.5)
        if self.wrong == "elsewhere":
            return x.flatten(1)[:, :4] + self.aside[0]
        logits = self.head(x.flatten(1))
        match self.wrong:
            case "tuple":
                return logits, x
            case "dict":
                return {"logits": logits}
            case "classes":
                return logits[:, :3]
            case "half":
                return logits.half()
            case "nan":
                return logits / 0
            case "moved":
                return logits.to("meta")
            case "constant":
                return self.head.bias.expand(len(x), 4)
            case "detached":
                return logits.detach()
            case "batch":
                return logits - logits.mean(0)
            case "raises":
                raise RuntimeError("no way\nnone at all")
            case _:
                return logits


GIVEN = "images come as float32 (2, 1, 4, 4) in [0, 1] on cpu, and logits (N, 4) should come out"
WRONG = {
    "tuple": f"it answers with tuple, not with logits of (2, 4); {GIVEN}",
    "dict": f"it answers with dict, not with logits of (2, 4); {GIVEN}",
    "classes": f"it answers with (2, 3), not with logits of (2, 4); {GIVEN}",
    "nan": f"its logits are not finite; {GIVEN}",
    "raises": f"at head (Linear): no way; {GIVEN}",
    "half": "it answers in float16; its logits should be float32: add .float()",
    "moved": f"it answers on meta, not on cpu; {GIVEN}",
}
TOLD = {
    "constant": "its logits have no gradient by the images, so attacks that follow one will find nothing",
    "detached": "its logits have no gradient by the images, so attacks that follow one will find nothing",
    "batch": "its answer for an image changes with the rest of the batch",
    "": "",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_model_that_does_not_answer_as_it_should_is_a_line(wrong: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(Odd(wrong), IMAGES, 4, "odd")
    assert caught.value.lines == (f"odd: {WRONG[wrong]}",)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Odd().half(), "head.weight is float16; return model.float()"),
        (Odd().double(), "head.weight is float64; return model.float()"),
        (Odd("meta"), "cannot be moved to cpu: "),
        (Odd("elsewhere"), "at the start: "),
        (Odd("in place"), "it writes into the images it is given; compute a new tensor there"),
    ],
)
def test_a_model_of_another_type_or_place_is_a_line(model: nn.Module, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        check(model, IMAGES.clone(), 4, "odd")
    [line] = caught.value.lines
    assert line.startswith(f"odd: {said}")


@pytest.mark.parametrize("odd", TOLD)
def test_what_flags_will_say_of_a_model_is_told_when_it_is_loaded(odd: str) -> None:
    assert check(Odd(odd), IMAGES, 4, "odd") == ((f"odd: {TOLD[odd]}",) if odd else ())


def test_a_model_that_cannot_answer_for_one_image_is_a_line() -> None:
    class Pairs(Odd):
        def forward(self, x: Tensor) -> Any:
            if len(x) < 2:
                raise ValueError("Expected more than 1 value per channel")
            return super().forward(x)

    with pytest.raises(BadInput, match=r"odd: at the start: Expected more than 1 .*it should answer .* for one image"):
        check(Pairs(), IMAGES, 4, "odd")


def test_a_right_model_passes_and_is_left_in_eval_mode_with_its_weights() -> None:
    model = Odd().train()
    before = json.dumps({name: value.tolist() for name, value in model.state_dict().items()})
    check(model, IMAGES, 4, "odd")
    assert not model.training
    assert json.dumps({name: value.tolist() for name, value in model.state_dict().items()}) == before


@pytest.mark.parametrize(("moved", "told"), [(1.0, ()), (1.5, ("odd: its answer for an image changes with the rest",))])
def test_a_batch_may_move_a_logit_by_a_thousandth_of_the_largest(moved: float, told: tuple[str, ...]) -> None:
    class Shifted(Odd):
        def forward(self, x: Tensor) -> Any:
            away = torch.tensor([0.0, moved if len(x) > 1 else 0.0, 0.0, 0.0])
            return torch.tensor([1000.0, 0.0, 0.0, 0.0]) + away + 0 * x.flatten(1)[:, :4]

    assert tuple(line.partition(" of the batch")[0] for line in check(Shifted(), IMAGES, 4, "odd")) == told


def test_a_model_that_answers_otherwise_each_time_is_not_said_to_depend_on_the_batch() -> None:
    class Dice(Odd):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) + torch.rand(len(x), 4)

    assert check(Dice(), IMAGES, 4, "odd") == ()
