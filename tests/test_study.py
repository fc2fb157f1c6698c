"""What every study has: streams of its own, and claims that get the numbers of a run."""

from __future__ import annotations

import pytest
import torch

from advbench.collectors.base import Measures, measure
from advbench.data.base import DataSet
from advbench.data.subsets import choose
from advbench.findings import Claim, Plot
from advbench.seeds import derive
from advbench.study import Setting, Study, declared
from advbench.task import Data


class Coins(Study):
    """How often a coin shows heads."""

    name = "coins"
    about = "Are coins fair?"
    paper = "none"
    seconds = 0.1
    claims = tuple(
        Claim(name=name, statement=f"{name}.", source="derived here", required=1, sense="at least") for name in "ab"
    )
    plot = Plot(x="throws", y="heads")


def test_a_setting_has_streams_that_are_named_by_the_seed_and_the_study_s_words(digits: DataSet) -> None:
    setting = Setting(3, torch.device("cpu"))
    seed = derive(3, "study", "a", 1)

    assert setting.derived("a", 1) == seed
    drawn = torch.rand(4, generator=setting.generator("a", 1))
    assert torch.equal(drawn, torch.rand(4, generator=torch.Generator().manual_seed(seed)))
    assert (setting.classes, setting.subsets) == (0, None)
    setting.say(1, 2, "words")  # to nobody
    subsets = choose(digits, Data(name="digits"), "cpu")
    assert Setting(3, torch.device("cpu"), subsets, 10).data is subsets


def test_a_rise_is_the_least_ratio_of_successive_values() -> None:
    assert Coins().rise(torch.tensor([1.0, 2.0, 3.0, 12.0])) == 1.5
    assert Coins().rise(torch.tensor([4.0, 2.0, 8.0])) == 0.5


def test_a_study_takes_any_data_and_makes_its_own_until_it_says_otherwise(digits: DataSet) -> None:
    assert Coins.data is None
    Coins().fit(digits)
    with pytest.raises(NotImplementedError):
        Coins().run(Setting(0, torch.device("cpu")))


def test_claims_get_the_numbers_of_a_run_and_none_may_be_left_out() -> None:
    values = {name: measure(number, "1", "a number") for name, number in (("a", 0.25), ("b", float("inf")), ("c", 3.0))}

    found = declared(Coins(), Measures(values))

    assert [(claim.name, claim.found) for claim in found] == [("a", 0.25), ("b", None)]
    assert [claim.found for claim in Coins.claims] == [None, None]
    del values["b"]
    with pytest.raises(ValueError, match="the study 'coins' claims b and measured no such thing"):
        declared(Coins(), Measures(values))
