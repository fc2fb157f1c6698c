"""Flags of an evaluation: every known-bad defense raises its own, honest models raise none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from known_bad import KNOWN, another_reader
from torch import Tensor, nn

from advbench import flags
from advbench.attacks.autoattack import AutoAttackPart
from advbench.attacks.base import Attack
from advbench.attacks.fgsm import FGSM
from advbench.attacks.pgd import PGD
from advbench.data.base import DataSet, Examples
from advbench.data.subsets import choose
from advbench.record import Flag
from advbench.scores import Verdicts
from advbench.task import Data
from advbench.threat import Threat


def names(found: list[Flag]) -> list[str]:
    return [flag.name for flag in found]


LINF = Threat("Linf", 0.15)
CHEAP: list[Attack] = [FGSM(), PGD(steps=10)]
LADDER: list[Attack] = [*CHEAP, AutoAttackPart(part="square", classes=10, queries=100)]
LONGER: list[Attack] = [*CHEAP, AutoAttackPart(part="square", classes=10, queries=300)]


@pytest.fixture(scope="module")
def another(digits: DataSet) -> nn.Module:
    return another_reader(choose(digits, Data(name="digits"), "cpu").train)


@pytest.fixture
def verdicts(judged, digits_test):
    """A function: model, threat -> verdicts on 64 digits, with what the model shows of itself."""

    def make(model: nn.Module, threat: Threat = LINF, ladder: Sequence[Attack] = LADDER, **how: Any) -> Verdicts:
        few = Examples(digits_test.stored[:64], digits_test.labels[:64], digits_test.index[:64], digits_test.peak)
        return judged(model, few, ladder, threat, curve=[], **how)

    return make


MORE = {
    # What else a kind must raise, and may: a zero gradient fails at any radius, and where attacks fail Square does not.
    "gradient killer": {"unbounded-attack-fails", "larger-eps-does-not-hurt", "black-box-beats-white-box"},
    "quantised input": {"unbounded-attack-fails", "larger-eps-does-not-hurt", "black-box-beats-white-box"},
    "jpeg": {"unbounded-attack-fails", "larger-eps-does-not-hurt", "black-box-beats-white-box"},
    "temperature 1e-4": {"unbounded-attack-fails", "larger-eps-does-not-hurt", "black-box-beats-white-box"},
}


@pytest.mark.parametrize("which", [pytest.param(0, id="one"), pytest.param(1, id="other", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KNOWN)
def test_a_known_bad_defense_raises_its_flag(kind, which, digits_cnn, another, verdicts):
    flag, *builds = KNOWN[kind]
    model = builds[which]((digits_cnn, another)[which].eval())

    # Shattered gradients still break some, of which Square has to break more.
    ladder = LONGER if kind == "shattered gradient" else LADDER
    raised = names(flags.of_evaluation(verdicts(model, ladder=ladder)))

    assert len(raised) == len(set(raised))
    assert {flag} | MORE.get(kind, set()) <= set(raised)


@pytest.mark.parametrize("threat", [Threat("Linf", 0.02), Threat("Linf", 0.15), Threat("L2", 0.6), Threat("L1", 2.0)])
@pytest.mark.parametrize("which", [0, 1], ids=["cnn", "mlp"])
def test_an_honest_model_raises_none(which, threat, digits_cnn, another, verdicts):
    found = verdicts((digits_cnn, another)[which], threat)

    assert flags.of_evaluation(found) == []
    assert flags.masked(found) == ()


def test_a_zero_gradient_says_where_it_is_lost(digits_cnn, another, verdicts):
    said = {
        kind: next(f for f in flags.of_evaluation(verdicts(KNOWN[kind][-1](digits_cnn), ladder=CHEAP)))
        for kind in ("gradient killer", "temperature 1e-4", "jpeg")
    }

    assert {flag.name for flag in said.values()} == {"zero-gradient"}
    assert "rounds or stops it" in said["gradient killer"].message
    assert "so large that softmax" in said["temperature 1e-4"].message
    assert "no gradient to the image" in said["jpeg"].message
    evidence = said["temperature 1e-4"].evidence
    assert evidence["flat"] > 0.9 * evidence["correct"]
    assert (evidence["disconnected"], evidence["logits_flat"], evidence["attacks"]) == (False, 0, ["fgsm", "pgd"])


def test_the_dear_rungs_are_spared_only_where_the_logits_have_no_slope(digits_cnn, verdicts):
    def mask(kind: str) -> tuple[str, ...]:
        return flags.masked(verdicts(KNOWN[kind][1](digits_cnn), ladder=CHEAP))

    assert mask("gradient killer") == ("zero-gradient", "unbounded-attack-fails")
    assert mask("temperature 1e-4") == ()
    assert mask("shattered gradient") == ()


def test_one_flat_example_in_twenty_is_no_mask(digits_cnn, verdicts):
    found = verdicts(digits_cnn, ladder=LADDER[:1])
    correct = found.ledger.correct
    twentieth = int(0.05 * len(correct))

    found.ledger.flat[correct[:twentieth]] = True
    assert flags.of_evaluation(found) == []
    found.ledger.flat[correct[: twentieth + 1]] = True
    [flag] = flags.of_evaluation(found)
    assert (flag.name, flag.evidence["flat"]) == ("zero-gradient", twentieth + 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KNOWN)
def test_a_masked_gradient_leaves_the_dear_rungs_out_and_nothing_else_does(kind, digits_cnn, verdicts):
    found = verdicts(KNOWN[kind][1](digits_cnn), doubt=flags.masked)

    raised = {flag.name: flag for flag in flags.of_evaluation(found)}
    if kind in ("gradient killer", "quantised input", "jpeg"):
        assert found.scores.robust is None
        assert raised["stopped"].evidence == {
            "because": ["zero-gradient", "unbounded-attack-fails"],
            "left": ["square"],
        }
    else:
        assert found.scores.robust is not None
        assert "stopped" not in raised


def test_a_model_of_one_class_is_not_stopped(digits_test, verdicts):
    class Always(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.eye(10)[3].expand(len(x), 10) + 0 * x.sum()

    found = verdicts(Always(), doubt=flags.masked)

    assert found.stopped == ()
    assert found.scores.robust == found.scores.clean.model_copy(update={"protocol": found.scores.robust.protocol})


def test_noise_is_not_told_as_dependence_on_the_batch(digits_cnn, verdicts):
    raised = names(flags.of_evaluation(verdicts(KNOWN["random noise"][1](digits_cnn), ladder=LADDER[:1])))

    assert "stochastic" in raised
    assert "batch-dependent" not in raised


def test_a_margin_that_is_not_finite_is_told_wherever_it_is(digits_cnn, verdicts):
    found = verdicts(digits_cnn, ladder=LADDER[:1])
    found.ledger.margin[63] = torch.nan

    [flag] = flags.of_evaluation(found)

    assert flag.name == "non-finite-logits"
    assert flag.message.startswith("1 of 64 clean examples")


def test_nothing_is_said_where_no_attack_follows_the_gradient_or_nobody_looked(judged, digits_cnn, digits_test):
    square = AutoAttackPart(part="square", classes=10, queries=5)
    quantised = KNOWN["quantised input"][1](digits_cnn)

    found = judged(quantised, digits_test, [square], Threat("Linf", 0.1), curve=[], alone=0)

    assert found.signs is None
    assert flags.of_evaluation(found) == []


def test_nothing_but_what_is_known_without_attacks_is_said_where_nothing_was_right(digits_cnn, verdicts):
    wrong = nn.Sequential(digits_cnn, nn.Flatten(), Negative())

    assert flags.of_evaluation(verdicts(wrong)) == []


class Negative(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return -z
