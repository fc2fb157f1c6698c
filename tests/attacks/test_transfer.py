"""Transfer: another attack on another network, judged on the target, which pays for nothing but the judging."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from advbench import find
from advbench.attacks.autoattack import AutoAttackPart
from advbench.attacks.base import Attack
from advbench.attacks.mi_fgsm import MIFGSM
from advbench.attacks.pgd import PGD
from advbench.attacks.transfer import Transfer
from advbench.data.base import Examples
from advbench.seeds import BlockNoise
from advbench.task import Entry
from advbench.threat import Norm, Threat

NORMS: tuple[Norm, ...] = ("Linf", "L2", "L1")
RADII = {"Linf": 0.12, "L2": 0.6, "L1": 3.0}
BARE = Transfer(surrogate=Entry(name="linear"))


def noise(n: int) -> BlockNoise:
    return BlockNoise(torch.device("cpu"), 4, n, torch.arange(n))


class Masked(nn.Module):
    """The network on rounded pixels: the same answers, but for a little, and no gradient."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside((64 * x).round() / 64)


@pytest.mark.parametrize("inner", [PGD(steps=5), MIFGSM()], ids=lambda a: a.name)
@pytest.mark.parametrize("norm", NORMS)
def test_its_candidates_are_those_of_its_attack_on_the_surrogate(digits_cnn, digits_test, norm, inner):
    network, x, y = digits_cnn.eval().requires_grad_(False), digits_test.pixels(slice(0, 8)), digits_test.labels[:8]
    threat = Threat(norm, RADII[norm])

    found = BARE.on(network, inner).run(nn.Identity(), x, y, threat, noise(8))

    assert torch.equal(found, inner.run(network, x, y, threat, noise(8)))


@pytest.mark.parametrize("norm", NORMS)
def test_it_breaks_a_target_whose_own_gradient_says_nothing_and_costs_it_one_pass(
    judged, digits_cnn, digits_test, norm
):
    few = Examples(digits_test.stored[:60], digits_test.labels[:60], digits_test.index[:60], digits_test.peak)
    network = digits_cnn.eval().requires_grad_(False)
    rungs = [PGD(random_start=False), BARE.on(network, PGD())]
    found = judged(Masked(network), few, rungs, Threat(norm, RADII[norm]), curve=[], alone=0)

    clean = found.scores.clean.accuracy
    assert found.scores.attacks["pgd"] == clean
    assert found.scores.attacks["transfer"] < 0.5 * clean
    assert found.gradient_rungs == ("pgd",)
    assert found.one_step == ()
    # Two clean passes, 20 of PGD and its judgement, and the judgement of the transfer.
    assert set(found.ledger.forward[found.ledger.broken_by != -2].tolist()) == {2 + 20 + 1 + 1}


def test_a_larger_ball_breaks_no_less(judged, digits_cnn, digits_test):
    few = Examples(digits_test.stored[:60], digits_test.labels[:60], digits_test.index[:60], digits_test.peak)
    network = digits_cnn.eval().requires_grad_(False)
    scores = [
        judged(Masked(network), few, [BARE.on(network, PGD())], Threat("Linf", eps), curve=[], alone=0).scores.robust
        for eps in (0.001, 0.05, 0.1, 0.2)
    ]
    accuracies = [score.accuracy for score in scores]
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > accuracies[-1]


def test_attacks_of_other_libraries_can_look_for_what_transfers(judged, digits_cnn, digits_test):
    pytest.importorskip("torchattacks", reason='pip install "advbench[torchattacks]"')
    inner = find.named(Attack, {"name": "torchattacks:DIFGSM", "options": {"alpha": 0.02}})
    few = Examples(digits_test.stored[:30], digits_test.labels[:30], digits_test.index[:30], digits_test.peak)
    attack = BARE.on(digits_cnn.eval().requires_grad_(False), inner)
    found = judged(Masked(digits_cnn), few, [attack], Threat("Linf", 0.15), curve=[], alone=0, batch=7)

    assert attack.whole_block
    assert found.scores.robust.accuracy < found.scores.clean.accuracy


def test_it_takes_its_examples_as_its_attack_takes_them(digits_cnn):
    assert not BARE.whole_block
    assert not BARE.on(digits_cnn, PGD()).whole_block
    assert BARE.on(digits_cnn, AutoAttackPart(part="square", classes=10)).whole_block


def test_the_schema_knows_of_what_its_tables_are():
    fields = Transfer.model_json_schema()["properties"]

    assert {name: fields[name]["table"] for name in ("surrogate", "attack")} == {
        "surrogate": "model",
        "attack": "attack",
    }


def test_a_bare_name_is_a_table_and_what_holds_the_network_stays_out_of_the_table(digits_cnn):
    made = Transfer.model_validate({"surrogate": {"name": "mlp", "hidden": [9]}, "attack": "mi-fgsm"})

    assert made.plain() == {
        "label": None,
        "restarts": 1,
        "surrogate": {"name": "mlp", "hidden": [9]},
        "attack": {"name": "mi-fgsm"},
    }
    assert made.on(digits_cnn, PGD()).plain() == made.plain()
    assert BARE.plain()["attack"] == {"name": "pgd"}
    with pytest.raises(RuntimeError, match="no network yet"):
        made.run(nn.Identity(), torch.rand(1, 3), torch.zeros(1).long(), Threat("Linf", 0.1), noise(1))
    with pytest.raises(ValidationError):
        Transfer.model_validate({})
