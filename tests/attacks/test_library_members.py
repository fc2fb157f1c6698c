"""What is asked of torchattacks and foolbox, of packages in their shape: theirs need not be installed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peers import noise
from torch import Tensor, nn

from advbench.attacks.foolbox import Foolbox
from advbench.attacks.library import Library, parameters, quietly
from advbench.attacks.torchattacks import Torchattacks
from advbench.threat import Norm, Threat


class Answers(nn.Module):
    """Five classes."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :5]


X, Y = torch.rand(6, 1, 3, 4, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 5


def member(family: type[Library], known: Mapping[str, Any], name: str, monkeypatch: pytest.MonkeyPatch, **options: Any):
    """The attack that is called `name` in a library of the `known`; by a class of its own, for choices are kept."""
    kind: Any = type(family)
    apart: Any = kind(family.__name__, (family,), {"__module__": family.__module__})
    monkeypatch.setattr(apart, "known", classmethod(lambda cls: known))
    return apart.chosen(name)(options=options)


# --- torchattacks -----------------------------------------------------------------------------------------------------


class Asked:
    """Distance Measure : Linf, L2"""

    def __init__(self, model: nn.Module, eps: float = 9, steps: int = 3, n_classes: int = 10) -> None:
        self.told = {"eps": eps, "steps": steps, "n_classes": n_classes}
        self.model, self.device = model, None

    def set_device(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        assert self.device == x.device
        assert isinstance(self.model, Answers)
        met.append(self.told)
        return x + 0 * y.view(-1, 1, 1, 1)


class Largest:
    """By its largest radius and its seed.

    Distance Measure: L1
    """

    def __init__(self, model: nn.Module, max_epsilon: float, seed: int = 0, norm: str = "L9") -> None:
        del model
        met.append({"max_epsilon": max_epsilon, "seed": seed, "norm": norm})

    def set_device(self, device: torch.device) -> None:
        del device

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        del y
        return x


class Bare:
    def __init__(self, model: nn.Module) -> None:
        self.model = model


class Around:
    """Around other attacks. Distance Measure : Linf"""

    def __init__(self, model: nn.Module, attacks: list[Any], verbose: bool = False) -> None: ...


class Unlike:
    """Distance Measure : Linf"""

    def __init__(self, net: nn.Module, eps: float = 1) -> None: ...


met: list[dict[str, Any]] = []


def test_torchattacks_is_known_by_what_is_made_of_a_model_alone_and_by_what_its_words_say(monkeypatch) -> None:
    offered = {kind.__name__: kind for kind in (Asked, Bare, Around, Unlike)}
    package = SimpleNamespace(__all__=[*offered], hidden=Largest, **offered)
    monkeypatch.setattr("advbench.attacks.torchattacks.quietly", {"torchattacks": package}.__getitem__)

    assert Torchattacks.known() == {"Asked": (Asked, ("Linf", "L2")), "Bare": (Bare, ())}


def test_what_torchattacks_is_told_follows_from_the_threat_the_model_and_the_options(monkeypatch) -> None:
    known = {"Asked": (Asked, ("Linf",)), "Largest": (Largest, ("L1",))}
    met.clear()
    asked, largest = (member(Torchattacks, known, name, monkeypatch) for name in known)
    more = member(Torchattacks, known, "Asked", monkeypatch, steps=7)

    for attack, threat in ((asked, Threat("Linf", 0.1)), (more, Threat("L2", 0.5)), (largest, Threat("L1", 2.0))):
        assert torch.equal(attack.propose(Answers(), X, Y, threat, 41), X)

    assert met == [
        {"eps": 0.1, "steps": 3, "n_classes": 5},
        {"eps": 0.5, "steps": 7, "n_classes": 5},
        {"max_epsilon": 2.0, "seed": 41, "norm": "L1"},
    ]


@pytest.mark.parametrize(("name", "follows"), [("PGD", True), ("Square", False), ("OnePixel", False), ("GN", False)])
def test_torchattacks_without_a_gradient_are_known_by_name(monkeypatch, name: str, follows: bool) -> None:
    assert member(Torchattacks, {name: (Asked, ("Linf",))}, name, monkeypatch).follows_gradient is follows


# --- foolbox ----------------------------------------------------------------------------------------------------------


class Fixed:
    """foolbox.attacks.base.FixedEpsilonAttack."""

    def __init__(self, steps: int = 1) -> None:
        self.steps = steps

    def __call__(self, model: Any, x: Tensor, y: Tensor, epsilons: float) -> tuple[Tensor, Tensor, Tensor]:
        met.append({"model": model, "epsilons": epsilons, "steps": self.steps, "norm": getattr(self, "norm", None)})
        return x * torch.nan, x - epsilons, y


class Minimal:
    """foolbox.attacks.base.MinimizationAttack."""


class LinfNamed(Fixed): ...


class Distant(Minimal):
    distance = SimpleNamespace(p=2)


class Farther(Minimal):
    distance = SimpleNamespace(p=float("inf"))


class Sparse(Minimal):
    distance = SimpleNamespace(p=0)


class Constrained(Fixed):
    def __init__(self, constraint: str, steps: int = 1) -> None:
        super().__init__(steps)
        self.norm = constraint


class GaussianBlur(Fixed): ...


class Other: ...


def foolbox() -> Any:
    kinds = (LinfNamed, Distant, Farther, Sparse, Constrained, GaussianBlur, Other)
    base = SimpleNamespace(FixedEpsilonAttack=Fixed, MinimizationAttack=Minimal)
    attacks = SimpleNamespace(base=base, word="no class", **{kind.__name__: kind for kind in kinds})
    return SimpleNamespace(attacks=attacks, PyTorchModel=lambda model, **how: (model, how))


def test_foolbox_is_known_by_its_distance_its_name_or_the_constraint_that_it_takes(monkeypatch) -> None:
    monkeypatch.setattr("advbench.attacks.foolbox.quietly", {"foolbox": foolbox()}.__getitem__)

    assert Foolbox.known() == {
        "LinfNamed": (LinfNamed, ("Linf",)),
        "Distant": (Distant, ("L2",)),
        "Farther": (Farther, ("Linf",)),
        "Constrained": (Constrained, ("Linf", "L2")),
    }


def test_foolbox_is_told_the_radius_the_box_and_the_norm_where_it_asks_for_it(monkeypatch) -> None:
    monkeypatch.setattr("advbench.attacks.foolbox.quietly", {"foolbox": foolbox()}.__getitem__)
    known: dict[str, tuple[Any, tuple[Norm, ...]]] = {"LinfNamed": (LinfNamed, ("Linf",)), "C": (Constrained, ("L2",))}
    met.clear()
    model = Answers()

    found = member(Foolbox, known, "LinfNamed", monkeypatch, steps=4).propose(model, X, Y, Threat("Linf", 0.1), 0)
    member(Foolbox, known, "C", monkeypatch).propose(model, X, Y, Threat("L2", 0.5), 0)

    assert torch.equal(found, X - 0.1)
    target = (model, {"bounds": (0, 1), "device": X.device})
    assert met == [
        {"model": target, "epsilons": 0.1, "steps": 4, "norm": None},
        {"model": target, "epsilons": 0.5, "steps": 1, "norm": "l2"},
    ]


@pytest.mark.parametrize(
    ("name", "follows"),
    [
        *(("LinfPGD", True), ("BoundaryAttack", False), ("HopSkipJumpAttack", False)),
        *(("L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack", False), ("LinfAdditiveUniformNoiseAttack", False)),
    ],
)
def test_foolbox_without_a_gradient_is_known_by_name(monkeypatch, name: str, follows: bool) -> None:
    assert member(Foolbox, {name: (Fixed, ("Linf",))}, name, monkeypatch).follows_gradient is follows


# --- both -------------------------------------------------------------------------------------------------------------


def test_a_seed_for_a_library_is_a_positive_int32_and_another_for_every_block_and_attack(monkeypatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(Torchattacks, "propose", lambda self, model, x, y, threat, seed: seeds.append(seed) or x)
    known = {"Asked": (Asked, ("Linf",)), "Bare": (Bare, ("Linf",))}
    for attack in (member(Torchattacks, known, name, monkeypatch) for name in known):
        for block in range(20):
            attack.run(Answers(), X, Y, Threat("Linf", 0.1), noise(6, seed=block))

    # Of 40 even draws, none in the upper half happens once in 2^40 times.
    assert len(set(seeds)) == 40
    assert 2**30 <= max(seeds) < 2**31
    assert min(seeds) >= 0


def test_what_takes_anything_takes_no_parameter_of_those_names() -> None:
    def made(model: Any, *args: Any, eps: float = 1, **kwargs: Any) -> None: ...

    assert parameters(made) == {"model", "eps"}


def test_what_a_library_warns_of_while_it_is_imported_is_not_heard(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "grumbling.py").write_text("import warnings\nwarnings.warn('old')\nanswer = 42\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            assert quietly("grumbling").answer == 42
            warnings.warn("new", stacklevel=1)
    finally:
        sys.modules.pop("grumbling", None)

    assert [str(one.message) for one in heard] == ["new"]
    with pytest.raises(ImportError):
        quietly("not-there")
