"""How far the look at a model goes before any attack, and how often a long attack says where it is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from advbench import evaluate
from advbench.attacks.fgsm import FGSM
from advbench.data.base import Examples
from advbench.threat import Threat


@pytest.fixture
def few(digits_test: Examples) -> Examples:
    return Examples(digits_test.stored[:80], digits_test.labels[:80], digits_test.index[:80], digits_test.peak)


@pytest.mark.parametrize(("alone", "looked"), [(70, [64]), (9, [9]), (0, [])])
def test_the_model_is_looked_at_on_the_first_64_of_the_sample(
    judged: Any, digits_cnn: Any, few: Examples, monkeypatch: pytest.MonkeyPatch, alone: int, looked: list[int]
) -> None:
    seen: list[Tensor] = []
    monkeypatch.setattr(evaluate, "signs", lambda model, x, y: seen.append(x))
    judged(digits_cnn, few, [FGSM()], Threat("Linf", 0.1), curve=[], alone=alone)

    assert [len(x) for x in seen] == looked
    sample = torch.linspace(0, 79, alone).round().long()[:64]
    assert all(torch.equal(x, few.pixels(sample)) for x in seen)


@pytest.mark.parametrize(("most", "tried"), [(9, [9]), (4, [9, 4]), (1, [9, 4, 2, 1])])
def test_what_does_not_fit_is_looked_at_by_half(
    few: Examples, monkeypatch: pytest.MonkeyPatch, most: int, tried: list[int]
) -> None:
    met: list[int] = []

    def signs(model: Any, x: Tensor, y: Tensor) -> str:
        met.append(len(x))
        if len(x) > most:
            raise torch.OutOfMemoryError
        return "seen"

    monkeypatch.setattr(evaluate, "signs", signs)
    model: Any = None
    assert evaluate._look(model, few, torch.arange(9)) == "seen"
    assert met == tried
    assert evaluate._look(model, few, torch.arange(0)) is None
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        evaluate._look(model, few, torch.arange(2))


def test_a_long_attack_is_told_of_when_more_than_five_seconds_have_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    now, news = 100.0, list[Any]()
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(monotonic=lambda: now))
    watch = evaluate._pulse(lambda *said: news.append(said), 2, 7, "square")
    assert news == [("evaluate", 2, 7, "square")]
    for second, passes in ((105.0, 10), (105.5, 1234), (110.5, 2000), (111.0, 56789)):
        now = second
        watch(SimpleNamespace(forward=passes))  # type: ignore[arg-type]

    assert news[1:] == [("evaluate", 2, 7, f"square, {passes} passes") for passes in ("1,234", "56,789")]
