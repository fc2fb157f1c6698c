"""The attacks of foolbox by their names there. Rauber et al., JOSS 2020 (doi 10.21105/joss.02607).

Those that minimise the perturbation may stop at the first adversarial example within eps; what lies outside the ball is
cut back to it, and judged there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from torch import Tensor, nn

from advbench.attacks.library import Library, parameters, quietly
from advbench.threat import Norm, Threat

NORMS: dict[str, Norm] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Foolbox(Library):
    """`foolbox:NAME`: an attack of foolbox, which must be installed, with its own defaults."""

    name = "foolbox"
    paper = "doi 10.21105/joss.02607"
    example = "LinfPGD"
    no_gradient: ClassVar[frozenset[str]] = frozenset(
        {"BoundaryAttack", "GenAttack", "HopSkipJumpAttack", "L2ContrastReductionAttack", "SaltAndPepperNoiseAttack"}
    )
    ours: ClassVar[frozenset[str]] = frozenset({"constraint"})

    @classmethod
    def known(cls) -> Mapping[str, tuple[Any, tuple[Norm, ...]]]:
        package: Any = quietly("foolbox")
        base: Any = package.attacks.base
        bounded = (base.FixedEpsilonAttack, base.MinimizationAttack)
        made = {name: value for name, value in vars(package.attacks).items() if isinstance(value, type)}
        found = {name: (kind, _norms(name, kind)) for name, kind in made.items() if issubclass(kind, bounded)}
        return {name: both for name, both in found.items() if both[1]}

    @property
    def follows_gradient(self) -> bool:
        return super().follows_gradient and "AdditiveGaussianNoise" not in self.name and "UniformNoise" not in self.name

    def propose(self, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, seed: int) -> Tensor:
        del seed
        target = quietly("foolbox").PyTorchModel(model, bounds=(0, 1), device=x.device)
        told = {"constraint": threat.norm.lower()} if "constraint" in parameters(self.made) else {}
        _, candidates, _ = self.made(**told, **self.options)(target, x, y, epsilons=threat.eps)
        return candidates


def _norms(name: str, kind: Any) -> tuple[Norm, ...]:
    """By its distance, or by its name; one that takes a constraint takes it from the threat."""
    if "constraint" in parameters(kind):
        return ("Linf", "L2")
    power = getattr(getattr(kind, "distance", None), "p", None)
    word = f"l{power:g}" if power is not None else re.sub(r"^(linf|l2|l1)?.*", r"\1", name.lower())
    return (NORMS[word],) if word in NORMS else cast("tuple[Norm, ...]", ())
