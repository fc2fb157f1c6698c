"""Who may leave an attack, and what an attack says of itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from advbench.attacks.base import Attack, fooled
from advbench.attacks.pgd import PGD


class Says(nn.Module):
    """The pixels are the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Refuses(Says):
    """With a detector that lets nothing through whose first pixel is above its second and third."""

    def reject(self, x: Tensor) -> Tensor:
        return x.argmax(1) == 0


X = torch.tensor([[3.0, 1, 2], [1, 3, 2], [1, 2, 3], [2, 2, 1]])
Y = torch.tensor([1, 1, 1, 0])


def test_the_fooled_are_those_whose_best_logit_is_another_class_and_a_tie_goes_to_the_first():
    assert fooled(Says(), X, X, Y).tolist() == [True, False, True, False]
    assert fooled(Says(), X[:0], X[:0], Y[:0]).tolist() == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_logits_of_which_one_is_not_finite_fool_nobody_whatever_it_is(value: float, place: int):
    logits = X.clone()
    logits[0, place] = value

    assert fooled(Says(), X, logits, Y).tolist() == [False, False, True, False]


def test_those_that_look_fooled_and_no_others_are_asked_again_where_nothing_is_rounded():
    asked: list[Tensor] = []

    class Exact(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            asked.append(x)
            return x.roll(1, 1)

    rounded = Says()
    rounded.__dict__["judge"] = Exact()

    # Rolled, the first example is of class 1, as its label says, and the third of class 0.
    assert fooled(rounded, X, X, Y).tolist() == [False, False, True, False]
    assert len(asked) == 1
    assert torch.equal(asked[0], X[[0, 2]])
    assert fooled(rounded, X[1:2], X[1:2], Y[1:2]).tolist() == [False]
    assert len(asked) == 1


def test_a_model_without_a_detector_and_without_rounding_is_asked_nothing():
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("asked again")

    assert fooled(Silent(), X, X, Y).tolist() == [True, False, True, False]


def test_whom_a_detector_stops_is_not_fooled():
    assert fooled(Refuses(), X, X, Y).tolist() == [False, False, True, False]


class Named(Attack):
    name = "named"
    paper = "none"

    size: float | None = None


def test_its_key_is_its_label_or_its_name_and_names_the_protocol():
    assert (Named().key, Named().protocol(10)) == ("named", "named")
    assert (Named(label="other").key, Named(label="other").protocol(10)) == ("other", "other")


def test_fields_that_say_nothing_are_left_out_of_its_table_but_for_the_label():
    assert Named().plain() == {"label": None, "restarts": 1}
    assert Named(label="a", restarts=2, size=0.0).plain() == {"label": "a", "restarts": 2, "size": 0.0}


def test_alone_an_attack_is_itself_and_needs_a_gradient_in_the_model_s_own_format():
    attack: Any = Named()

    assert attack.parts(10) == (attack,)
    assert attack.alone() is attack
    assert attack.follows_gradient is True
    assert attack.passes is None
    assert (attack.everywhere, attack.whole_block, attack.norms) == (True, False, ("Linf", "L2", "L1"))


@pytest.mark.parametrize("label", ["", "-a", "a b", "a/b", ".a"])
def test_a_label_is_a_name_of_a_file(label: str):
    with pytest.raises(ValidationError, match="label"):
        PGD(label=label)
    assert PGD(label="A1.b_c-d").key == "A1.b_c-d"
