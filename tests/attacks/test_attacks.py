"""What every attack owes to a task file and to the ladder: its fields, how it is run, and where it computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fields import fields
from peers import NORMS, images, net, noise

from advbench import find
from advbench.attacks import squares
from advbench.attacks.apgd import APGD
from advbench.attacks.autoattack import AutoAttack, AutoAttackPart
from advbench.attacks.autoattack_fast import AutoAttackFast, FastPart
from advbench.attacks.autoattack_rand import AutoAttackRand
from advbench.attacks.base import Attack
from advbench.attacks.fab import FAB
from advbench.attacks.fgsm import FGSM
from advbench.attacks.library import Library
from advbench.attacks.mi_fgsm import MIFGSM
from advbench.attacks.pgd import PGD
from advbench.attacks.square import Square
from advbench.attacks.sst import SST
from advbench.attacks.transfer import Transfer
from advbench.task import Entry
from advbench.threat import Threat

FIELDS = """
attack.label null like ^[A-Za-z0-9][A-Za-z0-9._-]*$
attack.restarts 1 >= 1 <= 1000
apgd.eot null >= 1 <= 1000
apgd.loss "ce"
apgd.rho 0.75 > 0 <= 1
apgd.runs null >= 1 <= 1000
apgd.steps 100 >= 1 <= 10000
apgd.together 64 >= 1
autoattack.restarts 1 >= 1 <= 1
autoattack-fast.precision "fp32"
autoattack-fast.restarts 1 >= 1 <= 1
autoattack-rand.restarts 1 >= 1 <= 1
fab.alpha_max 0.1 >= 0 <= 1
fab.beta 0.9 > 0 < 1
fab.eta 1.05 >= 1
fab.nearest null
fab.restarts 1 >= 1 <= 1
fab.starts 1 >= 1 <= 1000
fab.steps 100 >= 1 <= 10000
fab.targets 9 >= 0 <= 1000
fab.together 64 >= 1
mi-fgsm.momentum 1.0 >= 0
mi-fgsm.step_size null > 0
mi-fgsm.steps 10 >= 1 <= 10000
pgd.random_start true
pgd.schedule null
pgd.step_size 0.25 > 0
pgd.steps 20 >= 1 <= 10000
square.p_init 0.8 > 0 <= 1
square.queries 5000 >= 1 <= 1000000
square.rescale_schedule false
sst.batch 32 >= 1
sst.epochs 100 >= 1 <= 10000
sst.hidden 256 >= 1
sst.lr 0.001 > 0
sst.noise 1.0 >= 0 <= 1
sst.steps 100 >= 1 <= 10000
sst.width 32 >= 1
transfer.attack {"name": "pgd"}
transfer.surrogate required
"""
"""Every field with its default, which tasks/README.md names, and its bounds."""


def test_fields_have_the_defaults_of_the_manual_and_bounds() -> None:
    kinds: dict[str, Any] = {name: find.part(Attack, name) for name in find.names(find.PACKAGE / "attacks")}
    own = {name: kind for name, kind in kinds.items() if not issubclass(kind, Library)}

    found = fields("attack", Attack) + [line for name in sorted(own) for line in fields(name, own[name])]

    assert found == FIELDS.split("\n")[1:-1]
    assert fields("library", Library) == ["library.options {}"]


ALONE_TOO = {"fgsm", "mi-fgsm", "pgd", "sst", "transfer"}
"""Cheap enough to meet what other rungs have broken."""
BLOCKS = {"autoattack", "foolbox", "sst", "torchattacks"}
"""Their random numbers, or what they learn, belong to the whole block."""
BLIND = {"square", "sst", "transfer"}
"""They need no gradient of the target."""
SURROGATE = Entry(name="linear")


def test_how_each_is_run_is_known_by_its_name() -> None:
    kinds: dict[str, Any] = {name: find.part(Attack, name) for name in find.names(find.PACKAGE / "attacks")}
    parts = {name: (AutoAttackPart if name == "autoattack" else kind) for name, kind in kinds.items()}
    # Ensembles are run by their parts.
    parts |= {"autoattack-fast": FastPart, "autoattack-rand": APGD}
    made = [Transfer(surrogate=SURROGATE), *(kind() for kind in (FGSM, PGD, MIFGSM, APGD, FAB, Square, SST))]

    assert {name for name, kind in parts.items() if kind.everywhere} == ALONE_TOO
    assert {name for name, kind in parts.items() if kind.whole_block is True} == BLOCKS
    assert {attack.name: attack.follows_gradient for attack in made} == {
        attack.name: attack.name not in BLIND for attack in made
    }
    assert not Transfer(surrogate=SURROGATE).whole_block, "of its attack, and there is none yet"
    assert all(set(kind.norms) == set(NORMS) for name, kind in kinds.items() if name not in ("foolbox", "torchattacks"))
    for ensemble in (AutoAttack(), AutoAttackFast(), AutoAttackRand()):
        for part in ensemble.parts(10):
            assert part.follows_gradient == (part.key != "square")


def on_the_cpu(made: Any) -> Any:
    def make(*given: Any) -> Any:
        with torch.device("cpu"):
            return made(*given)

    return make


@pytest.mark.parametrize(
    "attack",
    [
        *(FGSM(), PGD(steps=2), MIFGSM(steps=2), SST(epochs=1, width=2, hidden=2, steps=2)),
        *(APGD(steps=8, runs=2), APGD(loss="dlr-targeted", steps=3, runs=2), APGD(steps=2, eot=2)),
        *(FAB(steps=3, targets=2, starts=2), FAB(steps=2, targets=0), FAB(steps=2, targets=2, nearest=True)),
        Square(queries=20),
    ],
    ids=str,
)
@pytest.mark.parametrize("norm", NORMS)
def test_all_that_is_computed_lies_on_the_device_of_the_examples(monkeypatch, attack: Attack, norm: Any) -> None:
    """What is made anywhere else is made on torch's default device, which holds no numbers here."""
    model, x = net(1, 6), images(6, 1, 6, 6)
    y, threat = model(x).argmax(1), Threat(norm, {"Linf": 0.03, "L2": 0.15, "L1": 0.5}[norm])
    expected, block = attack.run(model, x, y, threat, noise(6)), noise(6)
    # These two are made on the CPU, and moved.
    for where, name in ((squares, "pyramids"), (SST, "_network")):
        monkeypatch.setattr(where, name, on_the_cpu(getattr(where, name)))

    with torch.device("meta"):
        found = attack.run(model, x, y, threat, block)

    assert torch.equal(found, expected)
