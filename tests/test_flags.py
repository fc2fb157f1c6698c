"""Flags: raised by what looks wrong, in published runs too, and by nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from advbench import flags
from advbench.record import Epoch, Flag

EPS = 0.1


def history(*curve: tuple[float, float], eps: float = EPS, **changes: Any) -> list[Epoch]:
    """Epochs with these (FGSM, PGD) accuracies."""
    values: dict[str, Any] = {"eps": eps, "clean": 0.9, "top_class": 0.2, **changes}
    cost: dict[str, Any] = {"seconds": 1.0, "forward": 1, "backward": 1}
    return [
        Epoch(epoch=i + 1, loss=1.0, lr=0.1, fgsm=fgsm, pgd=pgd, **cost, **values)
        for i, (fgsm, pgd) in enumerate(curve)
    ]


def names(found: list[Flag]) -> list[str]:
    return [flag.name for flag in found]


def of(*curve: tuple[float, float], **changes: Any) -> list[Flag]:
    return flags.of_training(history(*curve, **changes), eps=EPS, adversarial=True)


def test_a_collapse_is_told_with_its_numbers():
    [flag] = of((0.4, 0.35), (0.45, 0.4), (0.9, 0.02), (0.95, 0.01))

    assert flag.name == "catastrophic-overfitting"
    assert flag.evidence == {
        "epoch": 3,
        "fgsm": 0.9,
        "pgd": 0.02,
        "last_fgsm": 0.95,
        "last_pgd": 0.01,
        "best": 0.4,
        "arm": "gap",
    }
    assert "in epoch 3 PGD-10 leaves 2.0% where FGSM leaves 90.0%, after 40.0% before" in flag.message
    assert "back" not in flag.message


def test_a_collapse_that_passed_is_told_too():
    [flag] = of((0.45, 0.4), (0.9, 0.02), (0.5, 0.45))

    assert flag.evidence["epoch"] == 2
    assert "back at 45.0%" in flag.message


@pytest.mark.parametrize(
    "curve",
    [
        [(0.5, 0.45), (0.55, 0.5)],  # healthy
        [(0.5, 0.45), (0.95, 0.6)],  # a wide gap, but PGD holds
        [(0.25, 0.0), (0.2, 0.0)],  # weak all over
        [(0.5, 0.1), (0.6, 0.4)],  # on its way up
        [],
    ],
)
def test_a_healthy_history_raises_nothing(curve):
    assert of(*curve) == []


def test_an_epoch_of_the_ramp_says_nothing():
    ramp = history((0.45, 0.4), (0.9, 0.02), eps=EPS / 2)

    assert flags.of_training([*ramp, *history((0.45, 0.4))], eps=EPS, adversarial=True) == []


def test_a_defense_that_meets_no_attack_cannot_overfit_to_one():
    assert flags.of_training(history((0.45, 0.4), (0.9, 0.02)), eps=EPS, adversarial=False) == []


@pytest.mark.parametrize(("top", "dead"), [(0.2, False), (0.98, False), (0.99, True), (1.0, True)])
def test_a_model_of_one_class_is_dead(top, dead):
    assert names(of((0.1, 0.1), top_class=top)) == (["dead"] if dead else [])


def test_only_the_last_epoch_counts_for_dead():
    assert of((0.1, 0.1), top_class=1.0) != []
    assert flags.of_training(history((0.1, 0.1), top_class=1.0) + history((0.4, 0.4)), eps=EPS, adversarial=True) == []


def test_a_run_that_never_was_robust_is_told_without_a_best():
    [flag] = of((0.8, 0.01), (0.9, 0.02))

    assert (flag.evidence["best"], flag.evidence["arm"]) == (0, "end")
    assert "before" not in flag.message


def test_robust_overfitting_is_told_with_its_numbers():
    [flag] = of(*[(0.55, 0.5)] * 5, *[(0.5, 0.45)] * 3, *[(0.48, 0.4)] * 5)

    assert flag.name == "robust-overfitting"
    assert flag.evidence == pytest.approx({"best": 0.5, "best_epoch": 3, "last": 0.4, "drop": 0.1})
    assert "left 50.0% around epoch 3 and leaves 40.0%" in flag.message


def test_a_collapse_is_the_stronger_word():
    assert names(of(*[(0.55, 0.5)] * 8, *[(0.9, 0.02)] * 8)) == ["catastrophic-overfitting"]


def test_a_defense_that_meets_no_attack_cannot_overfit_robustly():
    falling = history(*[(0.55, 0.5)] * 8, *[(0.48, 0.4)] * 8)

    assert flags.of_training(falling, eps=EPS, adversarial=False) == []


def test_what_a_constant_answer_is_worth_is_nothing_to_fall_from():
    # Two classes, one of them 60 %: nearly always that answer, and then on the way up.
    begun = history((0.6, 0.6), (0.7, 0.25))

    assert flags.of_training(begun, eps=EPS, adversarial=True, largest=0.6) != []  # its last epoch: a wide gap
    assert flags.of_training([*begun, *history((0.7, 0.4))], eps=EPS, adversarial=True, largest=0.6) == []
    assert names(flags.of_training([*begun, *history((0.7, 0.4))], eps=EPS, adversarial=True)) == [
        "catastrophic-overfitting"
    ]


def raised_in(path: Path) -> set[str]:
    """Names of the flags that a file can raise."""
    calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
    given = [
        k.value for call in calls if getattr(call.func, "id", "") == "Flag" for k in call.keywords if k.arg == "name"
    ]
    return {ast.literal_eval(value) for value in given}


def test_every_flag_has_its_section_and_every_section_its_flag(repo: Path):
    package = Path(flags.__file__).parent
    raised = set[str]().union(*(raised_in(path) for path in package.rglob("*.py")))
    page = (repo / "docs" / "flags.md").read_text("utf-8")
    sections = re.findall(r"^## (.+)$", page, re.MULTILINE)

    assert sorted(sections) == sorted(raised)
    assert {"dead", "zero-gradient", "pgd-gap"} <= raised
    for name, text in zip(sections, re.split(r"^## .+$", page, flags=re.MULTILINE)[1:], strict=True):
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Seen", "Means", "Do", "Source"], name
    assert set(re.findall(r"\(#([a-z-]+)\)", page)) <= raised
