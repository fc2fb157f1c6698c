"""Attacks of other libraries are run as they are, in streams of their own, and judged as all others."""

from __future__ import annotations

import inspect
import random
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advbench import find
from advbench.attacks.base import Attack
from advbench.attacks.library import Library, own_streams
from advbench.data.base import Examples
from advbench.seeds import BlockNoise
from advbench.spec import BadInput
from advbench.threat import Norm, Threat


class Liar:
    """A library's attack that says that it succeeds, and does so by leaving the ball, or the image."""

    def __init__(self, steps: int = 10, how: str = "far", eps: float = 1.0) -> None:
        self.steps, self.how, self.eps = steps, how, eps

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sys.stdout.write("success: 100 %\n")
        images = {"far": x.roll(1, 0), "nothing": x, "nan": x * torch.nan}[self.how]
        return images, torch.ones(len(x), dtype=torch.bool)


class Lying(Library):
    name = "lying"
    paper = "none"
    example = "Liar"
    no_gradient: ClassVar[frozenset[str]] = frozenset({"Blind"})
    ours: ClassVar[frozenset[str]] = frozenset({"eps"})

    @classmethod
    def known(cls) -> Mapping[str, tuple[Any, tuple[Norm, ...]]]:
        return {"Liar": (Liar, ("Linf", "L2")), "Blind": (Liar, ("L1",))}

    def propose(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int) -> Tensor:
        del model, y, seed
        return self.made(eps=threat.eps, **self.options)(x)[0]


@pytest.mark.parametrize("how", ["far", "nothing", "nan"])
def test_a_library_that_lies_about_its_success_or_leaves_the_ball_gains_nothing(
    judged, digits_cnn, digits_test, how, capsys
):
    few = Examples(digits_test.stored[:40], digits_test.labels[:40], digits_test.index[:40], digits_test.peak)
    attack = Lying.chosen("Liar")(options={"how": how})
    found = judged(digits_cnn, few, [attack], Threat("Linf", 0.1), curve=[], alone=0)

    assert found.scores.robust.accuracy == found.scores.clean.accuracy > 0.8
    # What a library prints is nothing that `--json` may print.
    assert capsys.readouterr() == ("", "success: 100 %\n")


def test_its_class_is_the_schema_of_its_options():
    made = Lying.chosen("Liar")

    assert made is Lying.chosen("Liar")
    assert (made.name, made.norms, made().follows_gradient) == ("lying:Liar", ("Linf", "L2"), True)
    assert (Lying.chosen("Blind").norms, Lying.chosen("Blind")().follows_gradient) == (("L1",), False)
    assert find.plain(made(options={"steps": 3})) == {
        "name": "lying:Liar",
        "label": None,
        "restarts": 1,
        "options": {"steps": 3},
    }
    for fields, line in (
        ({"stesp": 3}, "options: no 'stesp'; did you mean 'steps'?"),
        ({"eps": 0.1}, "options: 'eps' follows from the task; leave it out"),
    ):
        with pytest.raises(BadInput) as caught:
            find.build(made, {"options": fields})
        assert caught.value.lines == (line,)


def test_names_that_are_none_are_answered():
    with pytest.raises(BadInput, match=r"no attack 'lying:Lair'; did you mean 'Liar'\?"):
        Lying.chosen("Lair")
    with pytest.raises(BadInput, match='name one of its attacks: name = "lying:Liar"'):
        find.build(Lying, {})


@pytest.mark.parametrize("name", ["torchattacks", "foolbox"])
def test_a_missing_library_is_one_line_that_says_what_to_install(monkeypatch, name):
    def missing(package: str) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'")

    monkeypatch.setattr(f"advbench.attacks.{name}.quietly", missing)
    with pytest.raises(BadInput) as caught:
        find.part(Attack, f"{name}:Uncached")
    line = f"'{name}:Uncached' needs {name} (No module named '{name}'); pip install \"advbench[{name}]\""
    assert caught.value.lines == (line,)
    # Whoever does not name it never misses it.
    assert find.part(Attack, name).name == name


def draws() -> tuple[Any, ...]:
    return torch.rand(3).tolist(), np.random.random(3).tolist(), [random.random() for _ in range(3)]


def test_global_streams_start_at_the_seed_and_go_on_as_if_nothing_had_been():
    def seed() -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)

    seed()
    expected = draws()
    seed()
    with own_streams(5, torch.device("cpu")):
        one = draws()
    other = None
    with suppress(ZeroDivisionError), own_streams(6, torch.device("cpu")):
        other = draws()
        raise ZeroDivisionError
    with own_streams(5, torch.device("cpu")):
        again = draws()

    assert draws() == expected
    assert one == again
    assert other not in (None, one)


def library(name: str) -> Any:
    """The package, or the test is skipped; typed Any because a check of types need not have it."""
    return pytest.importorskip(name, reason=f'pip install "advbench[{name}]"', exc_type=ImportError)


class Plane(nn.Module):
    """Two logits, +-(<w, x - 1/2> + bias)."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        source = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(1, 3, 4, generator=source), requires_grad=False)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        height = ((x - 0.5) * self.w).flatten(1).sum(1) + self.bias
        return torch.stack([height, -height], dim=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "norm", "options"),
    [
        ("torchattacks:FGSM", "Linf", {}),
        ("torchattacks:PGD", "Linf", {"steps": 20, "alpha": 0.05}),
        ("torchattacks:PGDL2", "L2", {"steps": 40, "alpha": 0.05}),
        ("torchattacks:MIFGSM", "Linf", {"alpha": 0.02}),
        ("foolbox:LinfPGD", "Linf", {"rel_stepsize": 0.1}),
        ("foolbox:FGM", "L2", {}),
        ("foolbox:L2PGD", "L2", {"rel_stepsize": 0.2}),
    ],
)
def test_with_the_threat_s_radius_they_find_the_best_point_of_a_hyperplane(name, norm, options):
    library(name.partition(":")[0])
    attack = find.named(Attack, {"name": name, "options": options})
    x = 0.45 + 0.1 * torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(1))
    threat, model = Threat(norm, 0.1), Plane(3).eval()
    best = threat.farthest(x, -model.w.expand_as(x))

    found = attack.run(model, x, torch.zeros(6, dtype=torch.int64), threat, BlockNoise(x.device, 0, 6, torch.arange(6)))

    assert norm in attack.norms
    assert threat.contains(found, x).all()
    gained, possible = (-((point - x) * model.w).flatten(1).sum(1) for point in (found, best))
    assert (gained >= 0.99 * possible).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "norm"),
    [("torchattacks:DeepFool", "L2"), ("foolbox:L2DeepFoolAttack", "L2"), ("foolbox:LinfDeepFoolAttack", "Linf")],
)
def test_a_nearest_point_counts_where_it_lies_in_the_ball(judged, name, norm):
    """The distance to the plane is |<w, x - 1/2> + bias| / ||w||_dual; radii on both sides of it."""
    library(name.partition(":")[0])
    model, x = Plane(0.6), torch.full((4, 1, 3, 4), 0.5)
    distance = float(0.6 / Threat(norm, 1).dual_norm(model.w[None]))
    few = Examples(x, torch.zeros(4, dtype=torch.int64), torch.arange(4), 1)
    attack = find.named(Attack, {"name": name})

    for times, accuracy in ((0.9, 1.0), (1.1, 0.0)):
        found = judged(model, few, [attack], Threat(norm, times * distance), classes=2, curve=[], alone=0)
        assert found.scores.robust.accuracy == accuracy


@pytest.mark.parametrize(
    "name", ["torchattacks:PGD", "torchattacks:Square", "foolbox:LinfPGD", "torchattacks:APGDT", "torchattacks:APGD"]
)
def test_the_ladder_repeats_them_and_leaves_no_trace(judged, digits_cnn, digits_test, name):
    library(name.partition(":")[0])
    few = Examples(digits_test.stored[:30], digits_test.labels[:30], digits_test.index[:30], digits_test.peak)
    options = {"n_queries": 60} if name.endswith("Square") else {"steps": 5}
    attack = find.named(Attack, {"name": name, "options": options})
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].tolist(), random.getstate()

    one, other = (judged(digits_cnn, few, [attack], Threat("Linf", 0.15), curve=[], alone=8) for _ in range(2))

    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before[1]
    assert random.getstate() == before[2]
    assert one.broken_by == other.broken_by
    assert torch.equal(one.ledger.adversarial, other.ledger.adversarial)
    assert one.scores.robust.accuracy < one.scores.clean.accuracy
    assert one.gradient_rungs == (() if name.endswith("Square") else (name,))
    assert all(parameter.grad is None for parameter in digits_cnn.parameters())


@pytest.mark.parametrize("name", ["torchattacks", "foolbox"])
def test_all_that_is_known_can_be_made_with_nothing_but_defaults(name):
    library(name)
    family: Any = find.part(Attack, name)
    known = family.known()

    assert len(known) > 30
    for member, (made, norms) in known.items():
        assert set(norms) <= {"Linf", "L2", "L1"}, member
        assert family.chosen(member)().made is made
        assert inspect.isclass(made)


def test_torchattacks_autoattack_is_not_the_standard_one():
    """Why its name is no protocol: ten steps where the authors take a hundred."""
    parts = library("torchattacks").AutoAttack(nn.Linear(1, 1))._autoattack.attacks
    assert [part.steps for part in parts if hasattr(part, "steps")] == [10, 10, 10]
