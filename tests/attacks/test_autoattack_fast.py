"""The ensemble on our engine: the standard version's numbers, the engine it asks for, and the authors' verdict."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack as Package
from torch import Tensor, nn

from advbench.attacks.apgd import APGD
from advbench.attacks.autoattack import AutoAttack
from advbench.attacks.autoattack_fast import AutoAttackFast, FastPart
from advbench.attacks.fab import FAB
from advbench.attacks.square import Square
from advbench.data.base import Examples
from advbench.inference import Quick
from advbench.ledger import CLEAN, STANDING
from advbench.seeds import BlockNoise
from advbench.threat import Norm, Threat

LINF = Threat("Linf", 0.09)


def some(digits_test: Examples, n: int) -> Examples:
    return Examples(digits_test.stored[:n], digits_test.labels[:n], digits_test.index[:n], digits_test.peak)


def ladder(precision: str = "fp32", queries: int = 100) -> list[FastPart]:
    """With a fiftieth of Square's budget: what is asked here does not depend on it."""
    attack = AutoAttackFast.model_validate({"precision": precision})
    return [part.model_copy(update={"queries": queries}) for part in attack.parts(10) if isinstance(part, FastPart)]


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_numbers_are_those_of_the_package_s_standard_version(norm: Norm):
    theirs = Package(nn.Identity(), norm=norm, eps=0.1, version="standard", device="cpu")
    ours: dict[str, Any] = {part.key: part.attack for part in AutoAttackFast().parts(10) if isinstance(part, FastPart)}

    assert list(ours) == theirs.attacks_to_run
    ce, targeted, fab, square = ours.values()
    assert isinstance(ce, APGD)
    assert (ce.loss, ce.steps, ce.rho, ce.runs_for(norm, 10)) == (
        theirs.apgd.loss,
        theirs.apgd.n_iter,
        theirs.apgd.thr_decr,
        theirs.apgd.n_restarts,
    )
    assert isinstance(targeted, APGD)
    assert targeted.steps == theirs.apgd_targeted.n_iter
    assert targeted.runs_for(norm, 10) == theirs.apgd_targeted.n_target_classes
    assert isinstance(fab, FAB)
    assert (fab.steps, fab.starts, fab.targets) == (
        theirs.fab.n_iter,
        theirs.fab.n_restarts,
        theirs.fab.n_target_classes,
    )
    assert (fab.alpha_max, fab.eta, fab.beta) == (theirs.fab.alpha_max, theirs.fab.eta, theirs.fab.beta)
    assert isinstance(square, Square)
    assert (square.queries, square.p_init, square.rescale_schedule, square.restarts) == (
        theirs.square.n_queries,
        theirs.square.p_init,
        theirs.square.rescale_schedule,
        theirs.square.n_restarts,
    )


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_below_four_classes_the_numbers_are_those_of_the_package_s_custom_version(norm: Norm):
    names: list[Any] = ["apgd-ce", "fab", "square"]
    theirs = Package(nn.Identity(), norm=norm, eps=0.1, version="custom", attacks=names, device="cpu")
    ours: dict[str, Any] = {part.key: part.attack for part in AutoAttackFast().parts(3) if isinstance(part, FastPart)}

    assert list(ours) == theirs.attacks_to_run
    ce, fab, square = ours.values()
    assert (ce.loss, ce.runs_for(norm, 3)) == ("ce", theirs.apgd.n_restarts)
    assert (fab.targets, fab.starts, theirs.fab.targeted) == (0, theirs.fab.n_restarts, False)
    assert square.queries == theirs.square.n_queries
    assert ladder(queries=17)[3].attack == Square(queries=17)


@pytest.mark.parametrize("classes", [2, 3, 4, 10])
def test_the_parts_are_the_reference_s_by_name_and_order(classes: int):
    keys = [part.key for part in AutoAttackFast().parts(classes)]
    assert keys == [part.key for part in AutoAttack().parts(classes)]


def test_the_protocol_says_what_is_not_the_standard():
    assert AutoAttackFast().protocol(10) == "autoattack-fast"
    assert AutoAttackFast().protocol(4) == "autoattack-fast"
    assert AutoAttackFast().protocol(3) == "apgd-ce+fab+square"
    assert AutoAttackFast(precision="bf16").protocol(10) == "autoattack-fast (bf16)"


def test_only_square_has_a_smaller_version_for_the_scores_alone():
    assert {part.key for part in AutoAttackFast().parts(10) if part.alone() != part} == {"square"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradient_attacks_may_round_and_square_may_not(judged, digits_cnn, digits_test, monkeypatch, precision):
    met: dict[str, nn.Module] = {}

    def spy(self: FastPart, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, noise: BlockNoise) -> Tensor:
        del y, threat, noise
        met[self.part] = model
        return x

    monkeypatch.setattr(FastPart, "run", spy)
    judged(digits_cnn, some(digits_test, 20), ladder(precision), LINF)

    assert {name: isinstance(m, Quick) and m.bf16 for name, m in met.items()} == {
        "apgd-ce": precision == "bf16",
        "apgd-t": precision == "bf16",
        "fab-t": precision == "bf16",
        "square": False,
    }
    assert all(isinstance(m, Quick) and m.judge is digits_cnn for m in met.values())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_neither_batch_nor_run_changes_a_verdict(judged, digits_cnn, digits_test, precision):
    examples = some(digits_test, 20)
    whole = judged(digits_cnn, examples, ladder(precision), LINF)
    split = judged(digits_cnn, examples, ladder(precision), LINF, batch=7)
    again = judged(digits_cnn, examples, ladder(precision), LINF)

    assert torch.equal(whole.ledger.broken_by, split.ledger.broken_by)
    for name in ("broken_by", "adversarial", "forward", "backward"):
        assert torch.equal(getattr(whole.ledger, name), getattr(again.ledger, name)), name


@pytest.mark.slow
def test_the_verdict_is_the_package_s(judged, digits_cnn, digits_test):
    """An example whose verdict hangs on the random numbers may go either way; two seeds each agree on the others."""
    examples = some(digits_test, 30)
    theirs = [part.model_copy(update={"queries": 100}) for part in AutoAttack().parts(10)]

    def broken(attacks: list[Any]) -> Tensor:
        runs = [judged(digits_cnn, examples, attacks, LINF, curve=[], alone=0, seed=seed) for seed in range(2)]
        return torch.stack([run.ledger.broken_by != STANDING for run in runs]).sum(0)

    ours, package = broken(ladder()), broken(theirs)
    assert 5 <= int((package == 2).sum()) <= 25
    assert not ((ours == 2) & (package == 0)).any()
    assert not ((ours == 0) & (package == 2)).any()


def test_what_falls_at_once_costs_next_to_nothing(judged, digits_cnn, digits_test):
    """At a radius where nothing stands, APGD-CE breaks all within a few steps of its hundred."""
    found = judged(digits_cnn, some(digits_test, 50), ladder(), Threat("Linf", 0.4), curve=[], alone=0)

    assert not (found.ledger.broken_by == STANDING).any()
    right = found.ledger.broken_by != CLEAN
    # Clean look, targets, start, steps, the judge of those that look fooled, and the ledger's own pass.
    assert float(found.ledger.forward[right].double().mean()) < 12


@pytest.mark.parametrize("norm", ["Linf", *(pytest.param(norm, marks=pytest.mark.slow) for norm in ("L2", "L1"))])
def test_a_radius_of_next_to_nothing_breaks_nothing(judged, digits_cnn, digits_test, norm: Norm):
    found = judged(digits_cnn, some(digits_test, 10), ladder(queries=20), Threat(norm, 1e-9), curve=[], alone=0)
    assert found.scores.robust.accuracy == found.scores.clean.accuracy > 0.5


def test_all_examples_already_wrong_meet_no_attack(judged, digits_cnn, digits_test):
    first = some(digits_test, 10)
    predicted = digits_cnn.eval()(first.pixels(slice(0, 10))).argmax(1)
    wrong = Examples(first.stored, (predicted + 1) % 10, first.index, first.peak)
    found = judged(digits_cnn, wrong, ladder(), LINF, curve=[])
    assert found.scores.robust.accuracy == 0
    assert set(found.ledger.forward.tolist()) == {2}


class NotFinite(nn.Module):
    """Says NaN of every image that is not the clean one it was trained to know: an attack's first step is enough."""

    def __init__(self, model: nn.Module, clean: Tensor) -> None:
        super().__init__()
        self.model, self.clean = model, clean

    def forward(self, x: Tensor) -> Tensor:
        known = (x[:, None] == self.clean[None]).flatten(2).all(2).any(1)
        return torch.where(known[:, None], self.model(x), torch.nan)


def test_logits_that_are_not_finite_are_the_ledger_s_to_judge(judged, digits_cnn, digits_test):
    examples = some(digits_test, 6)
    model = NotFinite(digits_cnn, examples.pixels(slice(0, 6)))
    found = judged(model, examples, ladder(queries=20), LINF, curve=[], alone=0)
    assert not (found.ledger.broken_by == STANDING).any()
