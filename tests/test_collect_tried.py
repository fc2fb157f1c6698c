"""What comes of collectors of which some fail, and what each of them is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advbench import collect as collecting
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.collect import Tried, collect, each, tried
from advbench.collectors.base import Collector, Measures, NotApplicable, Scene, measure
from advbench.data.base import Examples
from advbench.threat import Threat

THREAT = Threat("Linf", 0.1)


class Reader(nn.Module):
    """Three logits that do not change, or do."""

    def __init__(self, *, noise: bool = False) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + (torch.rand(1) if self.noise else 0)


class Looks(Collector):
    """Says how many examples it was given, and keeps the scene."""

    name = "looks"
    about = "Nothing."
    paper = "none"

    def collect(self, scene: Scene) -> Measures:
        seen[self.name] = scene
        return Measures({"count": measure(torch.tensor(float(len(scene.x))), "1", "examples")}, notes=("said",))


class Second(Looks):
    name = "second"


class Third(Looks):
    name = "third"


class Refuses(Looks):
    name = "refuses"

    def collect(self, scene: Scene) -> Measures:
        raise NotApplicable("it is Tuesday")


class Breaks(Looks):
    name = "breaks"

    def collect(self, scene: Scene) -> Measures:
        raise ValueError("a\n  b " + "c" * 400)


seen: dict[str, Scene] = {}


@pytest.fixture
def some() -> Examples:
    seen.clear()
    return Examples(torch.rand(300, 1, 2, 2), torch.zeros(300, dtype=torch.int64), torch.arange(300), 1)


class Clock:
    """A second goes by whenever anybody looks."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 1
        return self.now


def test_what_one_raises_is_a_note_and_the_others_go_on(some: Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "time", Clock())
    said: list[str] = []
    asked = [Looks(), Breaks(), Second(examples=7), Refuses(), Third(examples=999)]
    found = {one.name: one for one in tried(Reader(), some, THREAT, asked, seed=3, say=said.append)}

    # Those who want as many examples come together.
    assert list(found) == said == ["looks", "breaks", "refuses", "third", "second"]
    counts = {name: one.measures.values["count"].value for name, one in found.items() if one.measures.values}
    assert counts == {"looks": 300, "second": 7, "third": 300}
    line = Breaks.collect.__code__.co_firstlineno + 1
    whole = ("a b " + "c" * 400)[:300]
    broken = Measures({}, notes=(f"failed: ValueError: {whole} (test_collect_tried.py, line {line})",))
    assert found["breaks"] == Tried("breaks", broken, 1, True)
    assert found["refuses"] == Tried("refuses", Measures({}, notes=("not applicable: it is Tuesday",)), 1, False)
    assert {(one.seconds, one.failed) for name, one in found.items() if name != "breaks"} == {(1, False)}
    assert {scene.seed for scene in seen.values()} == {3}


def test_an_error_from_nowhere_is_told_without_a_place() -> None:
    assert collecting._failure(ValueError("odd")) == "failed: ValueError: odd"


def test_a_scene_has_what_was_asked_for_and_the_defaults(some: Examples) -> None:
    given = FGSM()
    for how, seed, batch, attack in (
        ({}, 0, 256, PGD()),
        ({"seed": 2, "batch": 1, "attack": given}, 2, 1, given),
    ):
        asked: dict[str, Any] = how
        collect(Reader(), some, THREAT, [Looks()], **asked)
        scene = seen["looks"]
        assert (scene.seed, scene.batch, scene.attack, scene.classes, scene.threat) == (seed, batch, attack, 3, THREAT)
    dict(each(Reader(), some, THREAT, [Looks()]))
    assert (seen["looks"].seed, seen["looks"].batch) == (0, 256)


def test_a_model_that_answers_differently_each_time_is_told_of(some: Examples) -> None:
    for noise, notes in ((False, ("said",)), (True, ("said", "the model answers differently each time"))):
        assert collect(Reader(noise=noise), some, THREAT, [Looks()])["looks"].notes == notes


def test_who_collects_may_hear_how_far_it_is(some: Examples) -> None:
    class Tells(Looks):
        name = "tells"

        def collect(self, scene: Scene) -> Measures:
            scene.say("half way")
            return super().collect(scene)

    said: list[str] = []
    collect(Reader(), some, THREAT, [Tells()], say=said.append)
    list(tried(Reader(), some, THREAT, [Tells()], seed=0, say=said.append))
    assert said == ["half way", "tells", "half way"]
    assert collect(Reader(), some, THREAT, [Tells()]), "and nobody has to listen"
